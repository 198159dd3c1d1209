"""How many rows a run may lose, held against what one shard loses, and when to give up on all of them.

A worker whose calls have all failed, in the same way, runs broken code by the looks of it. It needs
no hundred rows to say so: as soon as the budget does not bear what it sees, it stops.
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

MAX_KEPT = 100
"""Dead letters that are kept of a shard that is given up."""

_ENOUGH_TO_JUDGE = 100
"""Rows lost before a share is judged by: a few bad rows at the beginning say little."""

_ENOUGH_WITHOUT_SUCCESS = 5
"""The same where no call has succeeded, all have failed alike, and the rows of the run are known."""

_MISTAKEN = 1e-6
"""How likely it may be that a batch is taken for one that fails as a whole, and is not."""

_LEAST_PROBES = 3


class LossError(ShardFailedError):
    """A shard loses more than it may.

    Attributes:
        traceback: Of the user's code, where most of its rows failed; may be empty.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __reduce__(self) -> tuple[type[LossError], tuple[str, str]]:
        return type(self), (str(self), self.traceback)


class RowFailedError(LossError):
    """A row failed, and the spec wants that to fail its shard."""


class TooManyFailedRowsError(LossError):
    """One shard alone loses more rows than the whole run may, or would if it were gone on with."""


@dataclass(slots=True)
class _Lost:
    """What one attempt at a shard has read and lost so far.

    Attributes:
        rows: Rows read.
        measured: Rows of batches that failed: only of these the size is asked for.
        bytes: Of these, in the source.
        kinds: Rows lost, by the kind of their error.
        first: The first dead letter of each kind; with its traceback.
        kept: The first dead letters.
    """

    rows: int = 0
    measured: int = 0
    bytes: int = 0
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str], DeadLetter] = field(default_factory=dict)
    kept: list[DeadLetter] = field(default_factory=list)

    def add(self, dead_letter: DeadLetter) -> None:
        is_first = self.first.setdefault(dead_letter.kind, dead_letter) is dead_letter
        self.kinds[dead_letter.kind] += 1
        if len(self.kept) < MAX_KEPT:
            self.kept.append(dead_letter if is_first else replace(dead_letter, traceback=""))


class Budget:
    """Counts the rows that each shard of a worker loses.

    A capability that fails every row must not be asked for every row of the source: each is tried
    again and again before it is set aside.

    Attributes:
        is_hopeless: Nothing that this worker could do would go through.
    """

    def __init__(self, policy: ErrorsSpec, *, whole: int) -> None:
        """Judge by *policy*, for a run of *whole* bytes in all shards."""
        self._policy, self._whole = policy, whole
        self._shards: dict[int, _Lost] = {}
        self._has_succeeded = False
        self._failed: Counter[tuple[str, str]] = Counter()
        self.is_hopeless = False

    def succeed(self) -> None:
        """Note that a call of the capability has returned."""
        self._has_succeeded = True

    @property
    def has_only_failed(self) -> bool:
        """Tell whether rows have failed, and no call has succeeded."""
        return bool(self._failed) and not self._has_succeeded

    def begin(self, shards: Iterable[int]) -> None:
        """Forget what earlier attempts at *shards* lost."""
        for shard in shards:
            self._shards.pop(shard, None)

    def end(self, shard: int) -> Sequence[DeadLetter]:
        """Return the first dead letters of an attempt at *shard*, and forget it."""
        lost = self._shards.pop(shard, None)
        return lost.kept if lost else ()

    def read(self, shard: Shard, *, rows: int) -> None:
        """Count *rows* more of *shard*."""
        self._of(shard).rows += rows

    def measure(self, shard: Shard, batch: Batch) -> None:
        """Look how large the rows of a *batch* are that failed."""
        lost = self._of(shard)
        lost.measured += len(batch)
        lost.bytes += batch.nbytes

    def dead_letter(self, shard: Shard, row: Batch, error: Exception) -> DeadLetter:
        """Return the dead letter of a *row* that failed; the first of its kind has the traceback."""
        dead_letter = DeadLetter.refused(shard, row.position(), error)
        if dead_letter.kind in self._of(shard).first:
            return dead_letter
        return replace(dead_letter, traceback=writable(traceback_of(error)))

    def keep(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Keep *dead letter*, of a row that is lost."""
        self._of(shard).add(dead_letter)
        if dead_letter.stage is Stage.CAPABILITY:
            self._failed[dead_letter.kind] += 1

    def count(self, shard: Shard, dead_letter: DeadLetter) -> None:
        """Keep *dead letter*, and count its row.

        Raises:
            RowFailedError: `on_row_error` is `fail`.
            TooManyLossesError: The shard has lost more than the run may.
        """
        self.keep(shard, dead_letter)
        if self._policy.on_row_error == "fail":
            raise RowFailedError(str(dead_letter), dead_letter.traceback)
        lost = self._of(shard)
        number = lost.kinds.total()
        if number > self._allowed(shard, _ENOUGH_TO_JUDGE):
            failed = f"{number:,} of its first {lost.rows:,} rows failed,"
            raise self._too_many(shard, of="failed rows", since=f"{failed} more than")
        if dead_letter.stage is Stage.CAPABILITY and self._bears(shard) < 0:
            raise self.give_up(shard)

    def probes(self, shard: Shard, *, rows: int) -> int:
        """Return how many of *rows* that failed together to try alone, from all over them.

        None where a call has succeeded, or where the budget bears that all of them fail. Should all
        of these fail alike, so do the others: with no more bad rows among them than the budget
        bears, that happens once in a million times. Where a row fails its shard, one is enough.
        """
        if self._policy.on_row_error == "fail":
            return 0 if self._has_succeeded else 1
        share = max(self._bears(shard), 0) / rows
        if share >= 1:
            return 0
        enough = math.log(_MISTAKEN) / math.log(share) if share else 0
        return min(rows, max(math.ceil(enough), _LEAST_PROBES))

    def _bears(self, shard: Shard) -> float:
        """Return how many more rows may fail as all have until now before there is no hope left."""
        if self._has_succeeded or len(self._failed) > 1:
            return math.inf
        enough = _ENOUGH_WITHOUT_SUCCESS if _has_known_rows(shard) else _ENOUGH_TO_JUDGE
        return self._allowed(shard, enough) - self._failed.total()

    def give_up(self, shard: Shard) -> LossError:
        """Return what to raise when rows from all over a batch have failed alike."""
        if self._policy.on_row_error == "fail":
            dead_letter = self._of(shard).kept[0]
            return RowFailedError(str(dead_letter), dead_letter.traceback)
        self.is_hopeless = True
        since = "No call has succeeded; if the other rows fail, too, that is more than"
        return self._too_many(shard, of="rows tried alone", since=since)

    def _too_many(self, shard: Shard, *, of: str, since: str) -> TooManyFailedRowsError:
        lost = self._of(shard)
        kind, number = lost.kinds.most_common(1)[0]
        dead_letter = lost.first[kind]
        return TooManyFailedRowsError(
            f"{shard}: {dead_letter.why}, {number:,} of {lost.kinds.total():,} {of}; one of them: "
            f"{dead_letter.row}. {since} errors.max_row_errors ({self._policy.max_row_errors:g}) allows "
            "the whole run",
            dead_letter.traceback,
        )

    def _of(self, shard: Shard) -> _Lost:
        return self._shards.setdefault(shard.id, _Lost())

    def _allowed(self, shard: Shard, enough: int) -> float:
        allowed = self._policy.allowed(self._likely_rows(shard))
        by_count = isinstance(self._policy.max_row_errors, int)
        return allowed if by_count else max(allowed, enough)

    def _likely_rows(self, shard: Shard) -> float:
        """Return how many rows the run has, if the rest of it is like the part that was read.

        The largest guess counts: a compressed file has more rows than its bytes let one think.
        """
        lost = self._of(shard)
        by_weight = max(lost.rows, shard.rows or 0) * self._whole / max(shard.weight, 1)
        by_size = lost.measured * self._whole / lost.bytes if lost.bytes else 0.0
        return max(by_weight, by_size)


def _has_known_rows(shard: Shard) -> bool:
    """Tell whether the rows of *shard* are known, or can be told from the size of the first."""
    return shard.rows is not None or shard.slicing is Slicing.BYTES
