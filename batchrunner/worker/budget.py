"""The budget of failed rows: how many a run may have, compared with those of one shard.

A worker whose calls have all failed in the same way most likely runs broken code. It does not need a
hundred rows to detect that: it stops as soon as the budget does not allow that the others fail, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from batchrunner.checkpoint.dead_letters import DeadLetter, Stage, writable
from batchrunner.errors import ShardFailedError
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import ErrorsSpec
from batchrunner.user_code import traceback_of
from batchrunner.worker.batch import Batch

_MAX_DEAD_LETTERS = 100
"""Dead letters that are stored of a shard that failed."""

_ENOUGH_TO_JUDGE = 100
"""Failed rows that any share allows: a few at the beginning do not show what share will fail."""

_ENOUGH_WITHOUT_SUCCESS = 5
"""The same where no call has succeeded, all have failed alike, and the run's rows can be estimated."""

_MISTAKEN = 1e-6
"""Accepted probability that a batch is judged to fail as a whole, and would not."""

_LEAST_SAMPLES = 3


class FailedRowsError(ShardFailedError):
    """Rows failed, and that fails their shard.

    Attributes:
        traceback: Of the user's code, for the most frequent error; may be empty.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[FailedRowsError], tuple[str, str]]:
        return type(self), (str(self), self.traceback)


class RowFailedError(FailedRowsError):
    """A row failed, and `errors.on_row_error` is `fail`."""


class TooManyFailedRowsError(FailedRowsError):
    """More rows of one shard failed than the whole run may have, or all are going to fail."""


@dataclass(slots=True)
class _FailedRows:
    """The rows of one attempt at a shard that were read so far, and those that failed.

    Attributes:
        rows: Rows read.
        measured: Rows of batches that failed: the size of others is never needed.
        bytes: Size of the measured rows in the source.
        kinds: Failed rows, by the kind of their error.
        first: The first dead letter of each kind, with its traceback.
        dead_letters: The first ones, of any kind, to explain the failure of the shard.
    """

    rows: int = 0
    measured: int = 0
    bytes: int = 0
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], DeadLetter] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)

    def add(self, dead_letter: DeadLetter) -> None:
        is_first = self.first.setdefault(dead_letter.kind, dead_letter) is dead_letter
        self.kinds[dead_letter.kind] += 1
        if len(self.dead_letters) < _MAX_DEAD_LETTERS:
            self.dead_letters.append(
                dead_letter if is_first else replace(dead_letter, traceback="")
            )


class Budget:
    """Counts the failed rows of each shard of a worker, and raises when they are too many.

    A capability that fails every row must not be called for every row of the source, each of which
    has several tries.

    Attributes:
        is_hopeless: Every row that this worker could still try is going to fail.
    """

    def __init__(self, policy: ErrorsSpec, *, whole: int) -> None:
        """Apply *policy* to a run whose shards have *whole* bytes in all."""
        self._policy, self._whole = policy, whole
        self._shards: dict[int, _FailedRows] = {}
        self._has_succeeded = False
        self._failed: Counter[tuple[str, str]] = Counter()
        self.is_hopeless = False

    def succeed(self) -> None:
        """Record that a call of the capability has returned."""
        self._has_succeeded = True

    @property
    def has_only_failed(self) -> bool:
        """Whether rows have failed, and no call has succeeded."""
        return bool(self._failed) and not self._has_succeeded

    def begin(self, shards: Iterable[int]) -> None:
        """Reset the counts of *shards*, of which an attempt begins."""
        for shard in shards:
            self._shards.pop(shard, None)

    def end(self, shard: int) -> Sequence[DeadLetter]:
        """Reset the counts of *shard*, and return the first dead letters of its last attempt."""
        failed = self._shards.pop(shard, None)
        return failed.dead_letters if failed else ()

    def read(self, shard: Shard, *, rows: int) -> None:
        """Count *rows* more of *shard*."""
        self._of(shard).rows += rows

    def measure(self, shard: Shard, batch: Batch) -> None:
        """Add the size of a *batch* that failed, from which the rows of the run are estimated."""
        failed = self._of(shard)
        failed.measured += len(batch)
        failed.bytes += batch.nbytes

    def dead_letter(self, shard: Shard, row: Batch, error: Exception) -> DeadLetter:
        """Return the dead letter of a *row* that failed; with the traceback if it is the first of its kind."""
        dead_letter = DeadLetter.refused(shard, row.position(), error)
        if dead_letter.kind in self._of(shard).first:
            return dead_letter
        return replace(dead_letter, traceback=writable(traceback_of(error)))

    def add(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Record *dead letter*, without comparing with the budget."""
        self._of(shard).add(dead_letter)
        if dead_letter.stage is Stage.CAPABILITY:
            self._failed[dead_letter.kind] += 1

    def count(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Record *dead letter*, and compare the rows that failed so far with the budget.

        Raises:
            RowFailedError: `on_row_error` is `fail`.
            TooManyFailedRowsError: More failed than the whole run may have.
        """
        self.add(shard, dead_letter)
        if self._policy.on_row_error == "fail":
            raise RowFailedError(str(dead_letter), dead_letter.traceback)
        failed = self._of(shard)
        number = failed.kinds.total()
        if number > self._allowed(shard, _ENOUGH_TO_JUDGE):
            since = f"{number:,} of its first {failed.rows:,} rows failed, more than"
            raise self._too_many(shard, of="failed rows", since=since)
        if dead_letter.stage is Stage.CAPABILITY and self._remaining(shard) < 0:
            raise self.hopeless(shard)

    def samples(self, shard: Shard, *, rows: int) -> int:
        """Return how many of *rows* that failed together to try one by one, before halving them.

        0 where a call has succeeded, or where the budget allows that all of them fail. If all the
        samples fail alike, so do the other rows: with no more bad rows than the budget allows, a
        sample of only bad ones comes up once in a million times. Where a row fails its shard, one
        sample is enough.
        """
        if self._policy.on_row_error == "fail":
            return 0 if self._has_succeeded else 1
        share = max(self._remaining(shard), 0) / rows
        if share >= 1:
            return 0
        enough = math.log(_MISTAKEN) / math.log(share) if share else 0
        return min(rows, max(math.ceil(enough), _LEAST_SAMPLES))

    def _remaining(self, shard: Shard) -> float:
        """Return how many more rows may fail alike before all others are expected to fail, too.

        Infinitely many once a call has succeeded or rows failed in two ways: then the data is bad,
        not the code.
        """
        if self._has_succeeded or len(self._failed) > 1:
            return math.inf
        enough = _ENOUGH_WITHOUT_SUCCESS if _has_countable_rows(shard) else _ENOUGH_TO_JUDGE
        return self._allowed(shard, enough) - self._failed.total()

    def hopeless(self, shard: Shard) -> FailedRowsError:
        """Return the error to raise for rows that show that all others are going to fail."""
        if self._policy.on_row_error == "fail":
            dead_letter = self._of(shard).dead_letters[0]
            return RowFailedError(str(dead_letter), dead_letter.traceback)
        self.is_hopeless = True
        since = "No call has succeeded; if the other rows fail, too, that is more than"
        return self._too_many(shard, of="rows tried alone", since=since)

    def _too_many(self, shard: Shard, *, of: str, since: str) -> TooManyFailedRowsError:
        failed = self._of(shard)
        kind, number = failed.kinds.most_common(1)[0]
        dead_letter = failed.first[kind]
        return TooManyFailedRowsError(
            f"{shard}: {dead_letter.why}, {number:,} of {failed.kinds.total():,} {of}; one of them: "
            f"{dead_letter.row}. {since} errors.max_row_errors ({self._policy.max_row_errors:g}) allows "
            "the whole run",
            dead_letter.traceback,
        )

    def _of(self, shard: Shard) -> _FailedRows:
        return self._shards.setdefault(shard.id, _FailedRows())

    def _allowed(self, shard: Shard, enough: int) -> float:
        allowed = self._policy.allowed(self._likely_rows(shard))
        by_count = isinstance(self._policy.max_row_errors, int)
        return allowed if by_count else max(allowed, enough)

    def _likely_rows(self, shard: Shard) -> float:
        """Return how many rows the run has, if the rest of it is like the part that was read.

        The larger of two estimates: a compressed file has more rows than its bytes suggest.
        """
        failed = self._of(shard)
        by_weight = max(failed.rows, shard.rows or 0) * self._whole / max(shard.weight, 1)
        by_size = failed.measured * self._whole / failed.bytes if failed.bytes else 0.0
        return max(by_weight, by_size)


def _has_countable_rows(shard: Shard) -> bool:
    """Return whether the rows of *shard* are counted, or can be estimated from the size of the first."""
    return shard.rows is not None or shard.slicing is Slicing.BYTES
