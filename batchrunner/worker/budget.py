"""The budget of failed rows: compares the failed rows of a shard with how many the run may have.

A worker whose calls have all failed in the same way most likely runs broken code. It does not wait
for a hundred failed rows: it stops as soon as the budget would not allow all other rows to fail as
well.
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
"""How many dead letters are stored of a shard that failed."""

_ENOUGH_TO_JUDGE = 100
"""Failed rows that any share allows: the first few rows do not show what share will fail."""

_ENOUGH_WITHOUT_SUCCESS = 5
"""As `_ENOUGH_TO_JUDGE`, if all calls have failed alike; not for a share that the spec sets, of rows that
cannot be estimated: what is estimated of a compressed file is too low."""

_MOST_WITHOUT_SUCCESS = 100
"""Rows that may fail alike before any call succeeds, whatever the estimate, if the spec sets no budget."""

_MISTAKEN = 1e-6
"""Accepted probability that all rows of a batch are judged bad although some are good."""

_LEAST_SAMPLES = 3


class FailedRowsError(ShardFailedError):
    """Failed rows that make their shard fail.

    Attributes:
        traceback: The traceback of the user's code for the most frequent error; may be empty.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[FailedRowsError], tuple[str, str]]:
        return type(self), (str(self), self.traceback)


class RowFailedError(FailedRowsError):
    """A row failed, and `errors.on_row_error` is `fail`."""


class TooManyFailedRowsError(FailedRowsError):
    """More rows of one shard failed than the whole run may have, or all are expected to fail."""


@dataclass(slots=True)
class _FailedRows:
    """Counts of the rows that one attempt at a shard has read, and of those that failed.

    Attributes:
        rows: Number of rows read.
        measured: Number of rows in batches that failed; the size of other batches is not needed.
        bytes: Size of the measured rows in the source.
        kinds: Number of failed rows, by the kind of their error.
        first: The first dead letter of each kind, with its traceback.
        dead_letters: The first dead letters of any kind, stored if the shard fails.
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

    A capability that fails every row must not be called for every row of the source, several times
    for each.

    Attributes:
        is_hopeless: Whether all other rows of this worker are expected to fail.
    """

    def __init__(self, policy: ErrorsSpec, *, whole: int, stage: str = Stage.CAPABILITY) -> None:
        """Apply *policy* to a run whose shards have *whole* bytes of the source in total.

        Rows that fail in no other stage have *stage* in their dead letters.
        """
        self._policy, self._whole, self._stage = policy, whole, stage
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
        """Reset the counts of *shards*, before an attempt at them begins."""
        for shard in shards:
            self._shards.pop(shard, None)

    def end(self, shard: int) -> Sequence[DeadLetter]:
        """Drop the counts of *shard*; return the first dead letters of its last attempt."""
        failed = self._shards.pop(shard, None)
        return failed.dead_letters if failed else ()

    def read(self, shard: Shard, *, rows: int) -> None:
        """Add *rows* to the number of rows read of *shard*."""
        self._of(shard).rows += rows

    def measure(self, shard: Shard, batch: Batch) -> None:
        """Add the size of a *batch* that failed, to estimate the number of rows of the run."""
        failed = self._of(shard)
        failed.measured += len(batch)
        failed.bytes += batch.nbytes

    def dead_letter(self, shard: Shard, row: Batch, error: Exception) -> DeadLetter:
        """Return the dead letter of *row*; with a traceback if it is the first of its kind."""
        dead_letter = DeadLetter.refused(
            shard, row.position(), error, number=row.number, stage=self._stage
        )
        if dead_letter.kind in self._of(shard).first:
            return dead_letter
        return replace(dead_letter, traceback=writable(traceback_of(error)))

    def add(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Record *dead_letter*; do not compare with the budget."""
        self._of(shard).add(dead_letter)
        if dead_letter.stage != Stage.READ:
            self._failed[dead_letter.kind] += 1

    def count(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Record *dead_letter*, and compare the number of failed rows with the budget.

        Raises:
            RowFailedError: `on_row_error` is `fail`.
            TooManyFailedRowsError: More rows of the shard failed than the whole run may have, or
                all rows are expected to fail.
        """
        self.add(shard, dead_letter)
        if self._policy.on_row_error == "fail":
            raise RowFailedError(str(dead_letter), dead_letter.traceback)
        failed = self._of(shard)
        number = failed.kinds.total()
        if number > self._allowed(shard, _ENOUGH_TO_JUDGE):
            since = f"{number:,} of its first {failed.rows:,} rows failed, more than"
            raise self._too_many(shard, of="failed rows", since=since)
        if dead_letter.stage != Stage.READ and self._remaining(shard) < 0:
            raise self.hopeless(shard)

    def samples(self, shard: Shard, *, rows: int) -> int:
        """Return how many rows of a failed batch of *rows* to try one by one before halving it.

        0 if a call has succeeded, or if the budget allows all of them to fail. If all rows of the
        sample fail alike, the others can be expected to: with as few bad rows as the budget allows,
        a sample of only bad ones has a probability of one in a million. If a failed row fails its
        shard, one row is enough.
        """
        if self._policy.on_row_error == "fail":
            return 0 if self._has_succeeded else 1
        share = max(self._remaining(shard), 0) / rows
        if share >= 1:
            return 0
        enough = math.log(_MISTAKEN) / math.log(share) if share else 0
        return min(rows, max(math.ceil(enough), _LEAST_SAMPLES))

    def _remaining(self, shard: Shard) -> float:
        """Return how many more rows may fail alike before all other rows are expected to fail.

        Infinity once a call has succeeded or rows have failed in two ways: then the data is bad,
        not the code.
        """
        if self._has_succeeded or len(self._failed) > 1:
            return math.inf
        return self._allowed_without_success(shard) - self._failed.total()

    def _allowed_without_success(self, shard: Shard) -> float:
        if "max_row_errors" not in self._policy.model_fields_set:
            return min(self._allowed(shard, _ENOUGH_WITHOUT_SUCCESS), _MOST_WITHOUT_SUCCESS)
        # The user may have set it for a source whose first rows are bad.
        countable = _has_countable_rows(shard)
        return self._allowed(shard, _ENOUGH_WITHOUT_SUCCESS if countable else _ENOUGH_TO_JUDGE)

    def hopeless(self, shard: Shard) -> FailedRowsError:
        """Return the error to raise if all other rows are expected to fail."""
        if self._policy.on_row_error == "fail":
            dead_letter = self._of(shard).dead_letters[0]
            return RowFailedError(str(dead_letter), dead_letter.traceback)
        self.is_hopeless = True
        kind = next(iter(self._of(shard).kinds))
        # Without a place in the user's code, the call may have returned what the sink refused.
        what = "No call has succeeded" if kind[1] else "No row could be written"
        since = f"{what}; if the other rows fail, too, that is more than"
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
        """Return the estimated number of rows of the run, if they are like the rows read so far.

        Takes the larger of two estimates: a compressed file has more rows than its bytes suggest.
        """
        failed = self._of(shard)
        by_weight = max(failed.rows, shard.rows or 0) * self._whole / max(shard.weight, 1)
        by_size = failed.measured * self._whole / failed.bytes if failed.bytes else 0.0
        return max(by_weight, by_size)


def _has_countable_rows(shard: Shard) -> bool:
    """Return whether the rows of *shard* are counted, or can be estimated from its bytes."""
    return shard.rows is not None or all(s.slicing is Slicing.BYTES for s in shard.slices)
