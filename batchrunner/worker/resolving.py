"""Finding the rows that fail a batch: it is halved until they stand alone, then they are set aside.

One bad row of n costs about 2 log2(n) calls more; the other rows go through. A failure that passes
by itself, such as a service that is away for a moment, has as many tries as there are halvings.

Code that fails every row is found out with a few of them: as long as no call has succeeded, rows from
all over the batch are tried alone before it is halved.
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
class Made:
    """What the capability made of some rows.

    Attributes:
        pieces: Ready for the sink.
        dead_letters: The rows that it made nothing of.
    """

    pieces: Pieces = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


class Resolver:
    """Gets what can be got out of a batch."""

    def __init__(
        self,
        submit: Callable[[Batch], Answer],
        policy: ErrorsSpec,
        types: RowTypes,
        *,
        budget: Budget,
    ) -> None:
        self._submit, self._policy, self._types = submit, policy, types
        self._budget = budget
        self._most: float = math.inf

    def resolve(self, shard: Shard, batch: Batch, answer: Answer) -> Made:
        """Return what the capability makes of *batch*; *answer* is that of the first call.

        Raises:
            RowFailedError: A row failed, and `on_row_error` is `fail`.
            TooManyLossesError: More rows failed than may, or all will by the looks of it.
        """
        if len(batch) > self._most:  # more than memory takes
            return self._in_halves(shard, batch)
        try:
            return self._taken(shard, answer)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            failed = error
        try:  # not while that is handled: it would be the context of what comes
            return self._after(shard, batch, failed)
        finally:
            del failed  # its frames, and with them the rows, go at once

    def _taken(self, shard: Shard, answer: Answer) -> Made:
        """Return what *answer* gives, whose types go on from those of the rows before."""
        self._types.turn_to(shard.id)
        pieces = answer()
        self._budget.succeed()
        self._types.accept([piece.rows for piece in pieces])
        return Made(pieces)

    def _probe(self, shard: Shard, batch: Batch) -> None:
        """Give up if rows from all over *batch* fail in the same way, as long as none went through."""
        dead_letters: list[DeadLetter] = []
        for row in batch.samples(self._budget.probes(shard, rows=len(batch))):
            error = self._error_of(row, tries=1 if dead_letters else self._tries)
            if error is None:
                return
            dead_letters.append(self._budget.dead_letter(shard, row, error))
        if dead_letters and len({dead_letter.kind for dead_letter in dead_letters}) == 1:
            for dead_letter in dead_letters:
                self._budget.keep(shard, dead_letter)
            raise self._budget.give_up(shard)

    def _error_of(self, row: Batch, *, tries: int) -> Exception | None:
        """Return what *row* raises at each of its *tries*; None if it goes through."""
        latest: Exception | None = None
        for _ in range(tries):
            try:
                self._submit(row)()  # its types count once its turn comes
            except CapabilityImportError:
                raise
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                latest = error
            else:
                self._budget.succeed()
                return None
        return latest

    @property
    def _tries(self) -> int:
        return self._policy.retry.max_attempts

    def _after(self, shard: Shard, batch: Batch, error: Exception) -> Made:
        if isinstance(error, CapabilityImportError):
            raise error
        if not batch.again:
            self._budget.measure(shard, batch)
        if len(batch) == 1:
            return self._alone(shard, batch, error)
        if isinstance(error, CallLostError):  # each death costs a new process: no halving
            return _joined(self._again(shard, row) for row in batch.singles())
        if is_out_of_memory(error):
            return self._in_less_memory(shard, batch)
        if not batch.again:  # once a batch, and not for its halves
            self._probe(shard, batch)
        return self._in_halves(shard, batch)

    def _in_less_memory(self, shard: Shard, batch: Batch) -> Made:
        before, self._most = self._most, len(batch) // 2
        made = self._in_halves(shard, batch)
        if (
            made.dead_letters
        ):  # it was a row, not the size of the batch: the others go on as they were
            self._most = before
        return made

    def _in_halves(self, shard: Shard, batch: Batch) -> Made:
        return _joined(self._again(shard, half) for half in batch.halves())

    def _again(self, shard: Shard, batch: Batch) -> Made:
        return self.resolve(shard, batch, self._submit(batch))

    def _alone(self, shard: Shard, batch: Batch, error: Exception) -> Made:
        """Give a row its last tries; one that kills or hangs has had its share of them."""
        tries = 0 if isinstance(error, CallLostError) else self._tries - 1
        for _ in range(tries):
            try:
                return self._taken(shard, self._submit(batch.once_more()))
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        dead_letter = self._budget.dead_letter(shard, batch, error)
        self._budget.count(shard, dead_letter)
        return Made(dead_letters=[dead_letter])


def _joined(parts: Iterable[Made]) -> Made:
    whole = Made()
    for part in parts:
        whole.pieces += part.pieces
        whole.dead_letters += part.dead_letters
    return whole
