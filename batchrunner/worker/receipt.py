"""Receipts: what a worker returns to the driver about the end of an attempt at a shard."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from batchrunner.checkpoint.documents import Sentinel
from batchrunner.shard import EarlyEnd
from batchrunner.spec.secrets import scrubbed
from batchrunner.worker.heartbeat import WorkerClocks
from batchrunner.worker.usage import Usage


class Cause(StrEnum):
    """Why a shard failed. It decides who has to act: the user, or the driver by another attempt."""

    CAPABILITY = "capability"
    """The user acts: the capability raised, or returned what cannot be written."""
    ROW = "row"
    """The user acts: a row failed, and by the spec a failed row fails its shard."""
    BUDGET = "budget"
    """The user acts: more rows failed than the budget of the run allows; the run ends."""
    INPUT = "input"
    """The user acts: a file of the source cannot be read."""
    IMPORT = "import"
    """The user acts: the capability cannot be built, so no shard can succeed."""
    FOREIGN = "foreign"
    """The user acts: an object that this run did not write has the name of the part."""
    TAKEN = "taken"
    """The user acts: other bytes have the path of a file that the part lists. The part is published."""
    STORAGE = "storage"
    """The driver hands the shard out again: storage failed."""


_USES_UP = frozenset({Cause.CAPABILITY, Cause.ROW, Cause.INPUT})
"""Causes that use up an attempt; a shard with none left is quarantined."""
QUARANTINED = _USES_UP | {Cause.TAKEN}
"""Causes for which a shard is quarantined: another attempt would not change that its path is taken."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard is not committed.

    Attributes:
        cause: What failed.
        reason: The message for the user.
        traceback: The traceback of the user's code, shown with `-v`; may be empty.
        attempts: Number of attempts so far.
        overtaken: Whether other workers may have agreed on types that some rows do not have. The
            next attempt has these types from the start, so that only those rows fail.
        unreadable: Numbers of all slices of the shard that cannot be read, if it is known that one of
            them is why it failed. Empty for a shard of one slice, which no driver divides.
    """

    cause: Cause
    reason: str
    traceback: str = ""
    attempts: int = 1
    overtaken: bool = False
    unreadable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DeferredCommit:
    """The result of a shard whose output has no column and whose sink has no schema yet.

    The driver commits it once a part with columns has fixed the schema, without another call.

    Attributes:
        rows_in: Rows read, failed ones included.
        rows_failed: Rows that failed.
        errors: Name of the file with the dead letters; empty if no row failed.
        errors_sha256: Hash of that file; empty if no row failed.
        source_hash: Hash of the bytes read from the source.
        bare_rows: Number of rows to write, none of which has a column.
        early_end: Where the shard ended early; None if it was read completely.
        usage: What its calls used.
    """

    rows_in: int
    rows_failed: int = 0
    errors: str = ""
    errors_sha256: str = ""
    source_hash: str = ""
    bare_rows: int = 0
    early_end: EarlyEnd | None = None
    usage: Usage = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The end of one attempt at one shard: exactly one of sentinel, failure and deferred is set.

    Attributes:
        shard: Id of the shard.
        sentinel: If the shard is committed, its sentinel, written by this attempt or by another.
        failure: If the shard failed, why.
        deferred: If the driver has to commit the shard later, its result.
        clocks: What the worker has spent its time on so far, on the last one of those that it sends
            together; None on the others.
    """

    shard: int
    sentinel: Sentinel | None = None
    failure: Failure | None = None
    deferred: DeferredCommit | None = None
    clocks: WorkerClocks | None = field(default=None, compare=False)

    @property
    def uses_up_attempt(self) -> bool:
        """Whether the failure counts for `retry.max_attempts`: capability, row or input failed."""
        return self.failure is not None and self.failure.cause in _USES_UP

    @property
    def is_storage_failure(self) -> bool:
        """Whether storage failed: the driver hands the shard out again."""
        return self.failure is not None and self.failure.cause is Cause.STORAGE

    def after(self, attempts: int) -> Receipt:
        """Return the receipt with *attempts* as the number of attempts, if it has a failure."""
        if self.failure is None:
            return self
        return replace(self, failure=replace(self.failure, attempts=attempts))

    def scrubbed(self) -> Receipt:
        """Return the receipt with the spec's secrets masked, as its texts are stored and shown."""
        if self.failure is None:
            return self
        reason, traceback = scrubbed(self.failure.reason), scrubbed(self.failure.traceback)
        return replace(self, failure=replace(self.failure, reason=reason, traceback=traceback))
