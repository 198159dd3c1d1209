"""Finding the rows that fail a batch: it is halved until they stand alone, then they are set aside.

One bad row of n costs about 2 log2(n) calls more; the other rows go through. A failure that passes
by itself, such as a service that is away for a moment, has as many tries as there are halvings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from batchrunner.errors import CapabilityImportError, ShardFailedError
from batchrunner.shard import Shard
from batchrunner.spec import ErrorsSpec
from batchrunner.user_code import is_out_of_memory
from batchrunner.worker.batch import Batch
from batchrunner.worker.calling import Answer, Pieces
from batchrunner.worker.isolation import CallLostError
from batchrunner.worker.letters import DeadLetter
from batchrunner.worker.schema import RowTypes


@dataclass(slots=True)
class Made:
    """What the capability made of some rows.

    Attributes:
        pieces: Ready for the sink.
        letters: The rows that it made nothing of.
    """

    pieces: Pieces = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)


class RowFailedError(ShardFailedError):
    """A row failed, and the spec wants that to fail its shard."""


class Resolver:
    """Gets what can be got out of a batch."""

    def __init__(
        self, submit: Callable[[Batch], Answer], policy: ErrorsSpec, types: RowTypes
    ) -> None:
        self._submit, self._policy, self._types = submit, policy, types
        self._most: float = math.inf

    def resolve(self, shard: Shard, batch: Batch, answer: Answer) -> Made:
        """Return what the capability makes of *batch*; *answer* is that of the first call.

        Raises:
            RowFailedError: A row failed, and `on_row_error` is `fail`.
        """
        if len(batch) > self._most:  # more than memory takes
            return self._in_halves(shard, batch)
        try:
            return self._taken(shard, answer)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return self._after(shard, batch, error)

    def _taken(self, shard: Shard, answer: Answer) -> Made:
        """Return what *answer* gives, whose types go on from those of the rows before."""
        self._types.turn_to(shard.id)
        pieces = answer()
        self._types.accept([piece.rows for piece in pieces])
        return Made(pieces)

    def _after(self, shard: Shard, batch: Batch, error: Exception) -> Made:
        if isinstance(error, CapabilityImportError):
            raise error
        if len(batch) == 1:
            return self._alone(shard, batch, error)
        if isinstance(error, CallLostError):  # each death costs a new process: no halving
            return _joined(self._again(shard, row) for row in batch.singles())
        if is_out_of_memory(error):
            return self._in_less_memory(shard, batch)
        return self._in_halves(shard, batch)

    def _in_less_memory(self, shard: Shard, batch: Batch) -> Made:
        before, self._most = self._most, len(batch) // 2
        made = self._in_halves(shard, batch)
        if made.letters:  # it was a row, not the size of the batch: the others go on as they were
            self._most = before
        return made

    def _in_halves(self, shard: Shard, batch: Batch) -> Made:
        return _joined(self._again(shard, half) for half in batch.halves())

    def _again(self, shard: Shard, batch: Batch) -> Made:
        return self.resolve(shard, batch, self._submit(batch))

    def _alone(self, shard: Shard, batch: Batch, error: Exception) -> Made:
        """Give a row its last tries; one that kills or hangs has had its share of them."""
        tries = 0 if isinstance(error, CallLostError) else self._policy.retry.max_attempts - 1
        for _ in range(tries):
            try:
                return self._taken(shard, self._submit(batch.once_more()))
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        letter = DeadLetter.refused(shard, batch.position(), error)
        if self._policy.on_row_error == "fail":
            raise RowFailedError(str(letter)) from error
        return Made(letters=[letter])


def _joined(parts: Iterable[Made]) -> Made:
    whole = Made()
    for part in parts:
        whole.pieces += part.pieces
        whole.letters += part.letters
    return whole
