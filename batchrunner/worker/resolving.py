"""Finds the rows that fail a batch: halves it until each bad row stands alone and is a dead letter.

One bad row in n costs about 2 log2(n) more calls; the other rows succeed. A transient failure, such
as a service that is briefly unavailable, gets a retry with each halving.

In mode `row` nothing is halved: the caller says which rows failed, and the answers of the others are kept.

Code that fails every row is detected early: as long as no call has succeeded, a sample of the batch
is tried row by row before the batch is halved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from batchrunner.checkpoint.dead_letters import DeadLetter
from batchrunner.errors import CapabilityImportError
from batchrunner.shard import Shard
from batchrunner.spec import ErrorsSpec
from batchrunner.user_code import free_memory_of, is_out_of_memory
from batchrunner.worker.batch import Batch
from batchrunner.worker.budget import Budget, RowFailedError, TooManyFailedRowsError
from batchrunner.worker.calling import Answer, Pieces
from batchrunner.worker.lost_calls import CallLostError, CallStoppedError, RowsFailedError
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.room import Room
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.usage import Usage, added, charging, usage_of_error


@dataclass(slots=True)
class BatchOutput:
    """The output of some rows: what goes to the sink, and the dead letters of those that failed.

    Attributes:
        pieces: What the capability returned, converted for the sink.
        dead_letters: The dead letters of the rows that failed.
        lost_usage: What the calls with these have used.
    """

    pieces: Pieces = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    lost_usage: Usage = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows of output."""
        return sum(piece.count for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """About how many bytes of output the pieces hold."""
        return sum(piece.nbytes for piece in self.pieces)


Outcome = BatchOutput | Failure | None
"""The output of the rows that a batch has of one shard, or why they fail it; None if they were not tried, since
all other rows are expected to fail, too, or the run stops."""


def failure_of(error: RowFailedError | TooManyFailedRowsError) -> Failure:
    """Return why a shard fails whose failed rows raised *error*."""
    cause = Cause.ROW if isinstance(error, RowFailedError) else Cause.BUDGET
    return Failure(cause, str(error), error.traceback)


class Resolver:
    """Calls the capability with batches, and retries a failed batch in smaller ones."""

    def __init__(
        self,
        call: Callable[[Batch], Answer],
        policy: ErrorsSpec,
        types: RowTypes,
        *,
        budget: Budget,
        room: Room | None = None,
    ) -> None:
        self._call, self._types, self._budget = call, types, budget
        self._tries = policy.retry.max_attempts
        self._room = room or Room()

    def submit(self, batch: Batch) -> Answer:
        """Submit *batch*, at once unless memory is known not to hold it: `resolve` halves it instead."""
        if len(batch) > self._room.rows:
            return partial(self._call_now, batch)
        return self._call(batch)

    def _call_now(self, batch: Batch) -> list[Pieces]:
        return self._call(batch)()

    def resolve(self, batch: Batch, answer: Answer) -> dict[int, Outcome]:
        """Return the outcome of *batch*, by shard id; *answer* is the answer to the first call with it.

        A failed batch of several shards is halved between them until each has its own: from there
        on, no row of one shard has to do with those of another.
        """
        try:
            if len(batch.shards) > 1:
                return self._of_shards(batch, answer)
            [shard] = batch.shards
            return {shard.id: self._of_shard(shard, batch, answer)}
        except CapabilityImportError as error:
            failure = Failure(Cause.IMPORT, str(error))
            return dict.fromkeys((shard.id for shard in batch.shards), failure)
        except CallStoppedError:
            return dict.fromkeys(shard.id for shard in batch.shards)

    def _of_shards(self, batch: Batch, answer: Answer) -> dict[int, Outcome]:
        if self._budget.is_hopeless:
            return dict.fromkeys(shard.id for shard in batch.shards)
        if len(batch) > self._room.rows:
            return self._apart(batch.halves_by_shard())
        try:
            return {**self._accept(batch, answer)}
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            failure = error
        try:  # outside of the handler, as in `_resolved`
            return self._between_shards(batch, failure)
        finally:
            del failure

    def _between_shards(self, batch: Batch, error: Exception) -> dict[int, Outcome]:
        """Return the outcome of a *batch* of several shards, for which the call raised *error*."""
        if isinstance(error, CapabilityImportError | CallStoppedError):
            raise error
        if isinstance(error, CallLostError | RowsFailedError):  # no halving, as in `_after_failure`
            return self._apart(batch.by_shard())
        before = self._room.rows
        if is_out_of_memory(error):
            free_memory_of(error)
            self._room.rows = len(batch) // 2
        outcomes = self._apart(batch.halves_by_shard())
        if not all(isinstance(o, BatchOutput) and not o.dead_letters for o in outcomes.values()):
            self._room.rows = before  # a row was the cause, not the size of the batch
        self._room.report()
        return outcomes

    def _apart(self, parts: Iterable[Batch]) -> dict[int, Outcome]:
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            outcomes |= self.resolve(part, self.submit(part))
        return outcomes

    def _of_shard(self, shard: Shard, batch: Batch, answer: Answer) -> Outcome:
        if self._budget.is_hopeless:
            return None
        try:
            return self._resolved(shard, batch, answer)
        except (RowFailedError, TooManyFailedRowsError) as error:
            failure = failure_of(error)
        self._types.drop(shard.id)  # now: the rows of the next shard do not go on from these
        return failure

    def _resolved(self, shard: Shard, batch: Batch, answer: Answer) -> BatchOutput:
        """Return the output of *batch*, whose rows are all of *shard*.

        Raises:
            RowFailedError: A row failed, and `on_row_error` is `fail`.
            TooManyFailedRowsError: More rows failed than the budget allows, or all would fail.
            CapabilityImportError: The capability cannot be built in its own process.
        """
        if len(batch) > self._room.rows:
            return self._in_halves(shard, batch)
        try:
            return self._accept(batch, answer)[shard.id]
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            failure = error
        try:  # outside of the handler: inside, `failure` would be the context of all later errors
            return self._after_failure(shard, batch, failure)
        finally:
            del failure  # frees its frames, and with them the rows, at once

    def _accept(self, batch: Batch, answer: Answer) -> dict[int, BatchOutput]:
        """Return the output of *answer*, by shard id.

        Raises the error of the call, or that of types that conflict with those of earlier rows.
        """
        ids = [shard.id for shard in batch.shards]
        self._types.turn_to(ids[0])
        output = dict(zip(ids, answer(), strict=True))
        self._budget.succeed()
        with charging(added(*(piece.usage for pieces in output.values() for piece in pieces))):
            self._types.accept_all({i: [p.rows for p in pieces] for i, pieces in output.items()})
        return {id_: BatchOutput(pieces) for id_, pieces in output.items()}

    def _sample(self, shard: Shard, batch: Batch) -> None:
        """Try a sample of *batch* row by row, as long as no call has succeeded.

        Raises:
            FailedRowsError: All rows of the sample failed in the same way, so all others would,
                too.
        """
        dead_letters: list[DeadLetter] = []
        for row in batch.samples(self._budget.samples(shard, rows=len(batch))):
            # All tries for the first row, in which a transient failure passes; then one try each is
            # enough.
            error = self._error_of(row, tries=1 if dead_letters else self._tries)
            if error is None:
                return
            dead_letters.append(self._budget.dead_letter(shard, row, error))
        if dead_letters and len({dead_letter.kind for dead_letter in dead_letters}) == 1:
            for dead_letter in dead_letters:
                self._budget.add(shard, dead_letter)
            raise self._budget.hopeless(shard)

    def _error_of(self, row: Batch, *, tries: int) -> Exception | None:
        """Return the error of the last of *tries* calls with *row*; None if a call succeeds."""
        latest: Exception | None = None
        for _ in range(tries):
            try:
                self.submit(row)()  # types not accepted: earlier rows are still to come
            except (CapabilityImportError, CallStoppedError):
                raise
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                latest = error
            else:
                self._budget.succeed()
                return None
        return latest

    def _after_failure(self, shard: Shard, batch: Batch, error: Exception) -> BatchOutput:
        if isinstance(error, CapabilityImportError | CallStoppedError):
            raise error
        if not batch.is_fraction:
            self._budget.measure(shard, batch)
        if is_out_of_memory(error):
            free_memory_of(error)
        if isinstance(error, RowsFailedError):
            return self._without_failed(shard, batch, error)
        if len(batch) == 1:
            return self._retry_row(shard, batch, error)
        if isinstance(error, CallLostError):  # no halving: each death costs a new process
            return _joined(self._submit_part(shard, row) for row in batch.singles())
        if is_out_of_memory(error):
            return self._in_less_memory(shard, batch)
        if not batch.is_fraction:  # for the whole batch, not for its halves
            self._sample(shard, batch)
        return self._in_halves(shard, batch)

    def _without_failed(self, shard: Shard, batch: Batch, failed: RowsFailedError) -> BatchOutput:
        """Return the output of the other rows of *batch*, which are answered: they are not called again."""
        if failed.has_answers:
            self._budget.succeed()
        dead_letters = []
        for index, error in failed.errors.items():
            dead_letters.append(self._budget.dead_letter(shard, batch.single(index), error))
            self._budget.count(shard, dead_letters[-1])
        others = batch.without(failed.errors)
        output = self._submit_part(shard, others) if others else BatchOutput()
        used = added(failed.usage, output.lost_usage)
        return BatchOutput(output.pieces, [*dead_letters, *output.dead_letters], used)

    def _in_less_memory(self, shard: Shard, batch: Batch) -> BatchOutput:
        """Halve *batch* and all later ones of its size, unless a single row takes the memory."""
        before, self._room.rows = self._room.rows, len(batch) // 2
        output = self._in_halves(shard, batch)
        if output.dead_letters:  # the row was the cause, not the size of the batch
            self._room.rows = before
        if not batch.is_fraction:
            self._room.report()
        return output

    def _in_halves(self, shard: Shard, batch: Batch) -> BatchOutput:
        return _joined(self._submit_part(shard, half) for half in batch.halves())

    def _submit_part(self, shard: Shard, batch: Batch) -> BatchOutput:
        return self._resolved(shard, batch, self.submit(batch))

    def _retry_row(self, shard: Shard, batch: Batch, error: Exception) -> BatchOutput:
        """Retry the only row of *batch*; return its dead letter if its tries are used up."""
        # A row that kills its process, or hangs, is not retried: a try would cost another process.
        tries = 0 if isinstance(error, CallLostError) else self._tries - 1
        for _ in range(tries):
            try:
                return self._accept(batch, self.submit(batch.retry()))[shard.id]
            except CallStoppedError:
                raise
            except RowsFailedError as latest:  # with all its attempts
                [error] = latest.errors.values()
                break
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        dead_letter = self._budget.dead_letter(shard, batch, error)
        self._budget.count(shard, dead_letter)
        return BatchOutput(dead_letters=[dead_letter], lost_usage=usage_of_error(error))


def _joined(parts: Iterable[BatchOutput]) -> BatchOutput:
    whole = BatchOutput()
    for part in parts:
        whole.pieces += part.pieces
        whole.dead_letters += part.dead_letters
        whole.lost_usage = added(whole.lost_usage, part.lost_usage)
    return whole
