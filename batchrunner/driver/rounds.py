"""What came of the shards that were handed out, and which of them to hand out once more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from batchrunner.checkpoint import Sentinel
from batchrunner.errors import CapabilityImportError
from batchrunner.shard import Shard, Slicing
from batchrunner.worker.receipt import GIVEN_UP, Cause, Failure, PutOff, Receipt

ROUNDS = 3
"""How often a shard is handed out when storage fails it; each time has its own retries inside."""

_STORAGE_FAILURES_IN_A_ROW = 20


def waves(shards: Iterable[Shard]) -> list[list[Shard]]:
    """Return *shards* as they can run: those of dead letters after the shards that set them aside.

    Both are pending only when damage was set aside: the rows to try again are then known again
    once the first is committed.
    """
    found: list[list[Shard]] = [[]]
    wave: dict[int, int] = {}
    for shard in sorted(
        shards, key=lambda shard: shard.id
    ):  # dead letters are younger than their shard
        after = wave.get(shard.start, -1) if shard.slicing is Slicing.DEAD_LETTERS else -1
        wave[shard.id] = after + 1
        if after + 1 == len(found):
            found.append([])
        found[after + 1].append(shard)
    return found


@dataclass(slots=True)
class Tally:
    """What is known of a session's shards.

    Attributes:
        committed: By this session, by id.
        failures: Of shards that are not committed, by id.
        put_off: What is known of shards that wait for the schema of the sink, by id.
    """

    committed: dict[int, Sentinel] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    put_off: dict[int, PutOff] = field(default_factory=dict)
    _in_a_row: int = 0

    def take(self, receipt: Receipt) -> bool:
        """Count *receipt*; return whether it is the first of its kind for that shard.

        Raises:
            CapabilityImportError: No shard can succeed.
        """
        if receipt.failure is not None:
            return self._take_failure(receipt.shard, receipt.failure)
        self.failures.pop(receipt.shard, None)
        self._in_a_row = 0
        if receipt.put_off is not None:
            self.put_off[receipt.shard] = receipt.put_off
        if receipt.sentinel is None:
            return False
        is_new = receipt.shard not in self.committed
        self.committed[receipt.shard] = receipt.sentinel
        return is_new

    def _take_failure(self, shard: int, failure: Failure) -> bool:
        if failure.cause is Cause.IMPORT:
            raise CapabilityImportError(failure.reason)
        if shard in self.committed:
            return False  # a repeated task lost to the one that committed
        self._in_a_row = self._in_a_row + 1 if failure.cause is Cause.STORAGE else 0
        is_new = shard not in self.failures
        self.failures[shard] = failure
        return is_new

    @property
    def given_up(self) -> dict[int, str]:
        """Return why shards are to be set apart, by id."""
        return {i: f.reason for i, f in self.failures.items() if f.cause in GIVEN_UP}

    @property
    def is_hopeless(self) -> bool:
        """Tell whether storage fails everything: a full disk, a lost permission."""
        return self._in_a_row >= _STORAGE_FAILURES_IN_A_ROW

    def foreign(self, shards: Iterable[Shard]) -> list[Shard]:
        """Return those of *shards* whose part's name is taken."""
        causes = {shard: failure.cause for shard, failure in self.failures.items()}
        return [shard for shard in shards if causes.get(shard.id) is Cause.FOREIGN]

    def to_retry(self, shards: Iterable[Shard]) -> list[Shard]:
        """Return those of *shards* that the environment failed, or whose receipt it lost."""
        return [shard for shard in shards if self._is_open(shard.id)]

    def _is_open(self, shard: int) -> bool:
        if failure := self.failures.get(shard):
            return failure.cause is Cause.STORAGE
        return shard not in self.committed and shard not in self.put_off
