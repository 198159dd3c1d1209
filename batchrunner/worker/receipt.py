"""Receipts: how an attempt at a shard ended, from the worker to the driver."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from batchrunner.checkpoint.documents import Sentinel
from batchrunner.spec.secrets import scrubbed


class Cause(StrEnum):
    """What a shard failed by, and so who has to act: the user or the environment."""

    CAPABILITY = "capability"
    """The user's: the capability raised, or returned what cannot be written."""
    ROW = "row"
    """The user's: a row failed, and the spec wants that to fail its shard."""
    BUDGET = "budget"
    """The user's: more rows failed than the budget of the run allows; it ends."""
    INPUT = "input"
    """The user's: a file of the source cannot be read."""
    IMPORT = "import"
    """The user's: the capability could not be built at all; no shard can succeed."""
    FOREIGN = "foreign"
    """The user's or another run's: something that this run did not write has the part's name."""
    STORAGE = "storage"
    """The environment's: the shard is handed out again."""


QUARANTINED = frozenset({Cause.CAPABILITY, Cause.ROW, Cause.INPUT})
"""Causes for which a shard is quarantined once its attempts are used up."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard is not committed.

    Attributes:
        cause: What failed.
        reason: One line for the user.
        traceback: Of the user's code, for `-v`; may be empty.
        attempts: How many there were.
        overtaken: Another worker has meanwhile agreed on other types than those of some rows. The
            next attempt has these types from the start, so that only those rows fail.
    """

    cause: Cause
    reason: str
    traceback: str = ""
    attempts: int = 1
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class DeferredCommit:
    """The result of a shard whose output has no column, while the schema of the sink is not fixed.

    The driver commits it once a part with columns has fixed the schema; nothing is computed again.

    Attributes:
        rows_in: Rows read, failed ones included.
        rows_failed: Rows that failed.
        errors: Name of the file of their dead letters; empty for none.
        errors_sha256: Hash of that file; empty for none.
        source_hash: Hash of what was read.
        bare_rows: Rows to write, without any column of their own.
    """

    rows_in: int
    rows_failed: int = 0
    errors: str = ""
    errors_sha256: str = ""
    source_hash: str = ""
    bare_rows: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The end of one attempt at one shard: committed, failed, or deferred. Exactly one is set.

    Attributes:
        shard: Id.
        sentinel: Of a committed shard, the sentinel that counts: of this attempt or of another.
        failure: Of a failed shard, the reason.
        deferred: Of a shard to be committed later, its result.
    """

    shard: int
    sentinel: Sentinel | None = None
    failure: Failure | None = None
    deferred: DeferredCommit | None = None

    @property
    def uses_up_attempt(self) -> bool:
        """Whether the user's side failed the shard: `retry.max_attempts` limits such attempts."""
        return self.failure is not None and self.failure.cause in QUARANTINED

    def after(self, attempts: int) -> Receipt:
        """Return the receipt with the number of *attempts*, if it is a failure's."""
        if self.failure is None:
            return self
        return replace(self, failure=replace(self.failure, attempts=attempts))

    def scrubbed(self) -> Receipt:
        """Return the receipt with the spec's secrets masked: its texts are stored and shown."""
        if self.failure is None:
            return self
        reason, traceback = scrubbed(self.failure.reason), scrubbed(self.failure.traceback)
        return replace(self, failure=replace(self.failure, reason=reason, traceback=traceback))
