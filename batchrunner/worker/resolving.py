"""Finds the rows that fail a batch: halves it until each bad row stands alone and is a dead letter.

One bad row in n costs about 2 log2(n) more calls; the other rows succeed. A transient failure, such
as a service that is briefly unavailable, gets a retry with each halving.

Code that fails every row is detected early: as long as no call has succeeded, a sample of the batch
is tried row by row before the batch is halved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from batchrunner.checkpoint.dead_letters import DeadLetter
from batchrunner.errors import CapabilityImportError
from batchrunner.shard import Shard
from batchrunner.spec import ErrorsSpec
from batchrunner.user_code import is_out_of_memory
from batchrunner.worker.batch import Batch
from batchrunner.worker.budget import Budget
from batchrunner.worker.calling import Answer, Pieces
from batchrunner.worker.isolation import CallLostError
from batchrunner.worker.schema import RowTypes


@dataclass(slots=True)
class BatchOutput:
    """The output of some rows: what goes to the sink, and the dead letters of those that failed.

    Attributes:
        pieces: What the capability returned, converted for the sink.
        dead_letters: The dead letters of the rows that failed.
    """

    pieces: Pieces = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """About how many bytes of output the pieces hold."""
        return sum(piece.nbytes for piece in self.pieces)


class Resolver:
    """Calls the capability with batches, and retries a failed batch in smaller ones."""

    def __init__(
        self,
        submit: Callable[[Batch], Answer],
        policy: ErrorsSpec,
        types: RowTypes,
        *,
        budget: Budget,
    ) -> None:
        self._submit, self._types, self._budget = submit, types, budget
        self._tries = policy.retry.max_attempts
        self._max_rows: float = math.inf

    def resolve(self, shard: Shard, batch: Batch, answer: Answer) -> BatchOutput:
        """Return the output of *batch*; *answer* is the answer to the first call with it.

        Raises:
            RowFailedError: A row failed, and `on_row_error` is `fail`.
            TooManyFailedRowsError: More rows failed than the budget allows, or all would fail.
            CapabilityImportError: The capability cannot be built in its own process.
        """
        if len(batch) > self._max_rows:
            return self._in_halves(shard, batch)
        try:
            return self._accept(shard, answer)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            failure = error
        try:  # outside of the handler: inside, `failure` would be the context of all later errors
            return self._after_failure(shard, batch, failure)
        finally:
            del failure  # frees its frames, and with them the rows, at once

    def _accept(self, shard: Shard, answer: Answer) -> BatchOutput:
        """Return the output of *answer*; raise if its types conflict with those of earlier rows."""
        self._types.turn_to(shard.id)
        pieces = answer()
        self._budget.succeed()
        self._types.accept([piece.rows for piece in pieces])
        return BatchOutput(pieces)

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
                self._submit(row)()  # types not accepted: earlier rows are still to come
            except CapabilityImportError:
                raise
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                latest = error
            else:
                self._budget.succeed()
                return None
        return latest

    def _after_failure(self, shard: Shard, batch: Batch, error: Exception) -> BatchOutput:
        if isinstance(error, CapabilityImportError):
            raise error
        if not batch.is_retry:
            self._budget.measure(shard, batch)
        if len(batch) == 1:
            return self._retry_row(shard, batch, error)
        if isinstance(error, CallLostError):  # no halving: each death costs a new process
            return _joined(self._submit_part(shard, row) for row in batch.singles())
        if is_out_of_memory(error):
            return self._in_less_memory(shard, batch)
        if not batch.is_retry:  # for the whole batch, not for its halves
            self._sample(shard, batch)
        return self._in_halves(shard, batch)

    def _in_less_memory(self, shard: Shard, batch: Batch) -> BatchOutput:
        """Halve *batch* and all later ones of its size, unless a single row takes the memory."""
        before, self._max_rows = self._max_rows, len(batch) // 2
        output = self._in_halves(shard, batch)
        if output.dead_letters:  # the row was the cause, not the size of the batch
            self._max_rows = before
        return output

    def _in_halves(self, shard: Shard, batch: Batch) -> BatchOutput:
        return _joined(self._submit_part(shard, half) for half in batch.halves())

    def _submit_part(self, shard: Shard, batch: Batch) -> BatchOutput:
        return self.resolve(shard, batch, self._submit(batch))

    def _retry_row(self, shard: Shard, batch: Batch, error: Exception) -> BatchOutput:
        """Retry the only row of *batch*; return its dead letter if its tries are used up."""
        # A row that kills its process, or hangs, is not retried: a try would cost another process.
        tries = 0 if isinstance(error, CallLostError) else self._tries - 1
        for _ in range(tries):
            try:
                return self._accept(shard, self._submit(batch.retry()))
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        dead_letter = self._budget.dead_letter(shard, batch, error)
        self._budget.count(shard, dead_letter)
        return BatchOutput(dead_letters=[dead_letter])


def _joined(parts: Iterable[BatchOutput]) -> BatchOutput:
    whole = BatchOutput()
    for part in parts:
        whole.pieces += part.pieces
        whole.dead_letters += part.dead_letters
    return whole
