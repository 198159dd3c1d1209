"""How the shards of a session ended so far, and which of them to hand out again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from batchrunner.checkpoint import Sentinel
from batchrunner.errors import CapabilityImportError
from batchrunner.shard import Shard
from batchrunner.worker.receipt import QUARANTINED, Cause, DeferredCommit, Failure, Receipt

_STORAGE_FAILURES_IN_A_ROW = 20


@dataclass(slots=True)
class ShardOutcomes:
    """How the shards of a session ended so far.

    Attributes:
        committed: Sentinels of the shards that this session committed, by id.
        failures: Failures of the shards that are not committed, by id.
        deferred: Results of the shards whose commit waits for the schema of the sink, by id.
    """

    committed: dict[int, Sentinel] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    deferred: dict[int, DeferredCommit] = field(default_factory=dict)
    _storage_failures: int = 0

    def take(self, receipt: Receipt) -> bool:
        """Store the outcome in *receipt*; return whether it is the first sentinel or failure.

        Raises:
            CapabilityImportError: The capability cannot be built, so no shard can succeed.
        """
        if receipt.failure is not None:
            return self._take_failure(receipt.shard, receipt.failure)
        self.failures.pop(receipt.shard, None)
        self._storage_failures = 0
        if receipt.deferred is not None:
            self.deferred[receipt.shard] = receipt.deferred
        if receipt.sentinel is None:
            return False
        is_new = receipt.shard not in self.committed
        self.committed[receipt.shard] = receipt.sentinel
        return is_new

    def _take_failure(self, shard: int, failure: Failure) -> bool:
        if failure.cause is Cause.IMPORT:
            raise CapabilityImportError(failure.reason)
        if shard in self.committed:
            return False  # Ray repeated the task, and another attempt has committed
        is_storage = failure.cause is Cause.STORAGE
        self._storage_failures = self._storage_failures + 1 if is_storage else 0
        is_new = shard not in self.failures
        self.failures[shard] = failure
        return is_new

    def retire(self, shards: Iterable[int]) -> None:
        """Forget how *shards* failed: others have their files now."""
        for shard in shards:
            self.failures.pop(shard, None)

    @property
    def to_quarantine(self) -> dict[int, Failure]:
        """The failures of shards that have used up their attempts, by id."""
        return {i: f for i, f in self.failures.items() if f.cause in QUARANTINED}

    @property
    def is_hopeless(self) -> bool:
        """Whether storage has failed so many shards in a row that all others would fail, too."""
        return self._storage_failures >= _STORAGE_FAILURES_IN_A_ROW

    def foreign(self, shards: Iterable[Shard]) -> list[Shard]:
        """Return those *shards* whose part's name is taken by a foreign object."""
        causes = {shard: failure.cause for shard, failure in self.failures.items()}
        return [shard for shard in shards if causes.get(shard.id) is Cause.FOREIGN]

    def to_retry(self, shards: Iterable[Shard]) -> list[Shard]:
        """Return those *shards* that failed because of storage, or whose receipt was lost."""
        return [shard for shard in shards if self._is_open(shard.id)]

    def _is_open(self, shard: int) -> bool:
        if failure := self.failures.get(shard):
            return failure.cause is Cause.STORAGE
        return shard not in self.committed and shard not in self.deferred
