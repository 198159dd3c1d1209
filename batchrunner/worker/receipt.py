"""What a worker tells the driver about a shard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from batchrunner.checkpoint.documents import Sentinel
from batchrunner.spec.secrets import scrubbed


class Cause(StrEnum):
    """Whose move it is when a shard failed."""

    CAPABILITY = "capability"
    """The user's: the capability raised, or returned what cannot be written."""
    ROW = "row"
    """The user's: a row failed, and the spec wants that to fail its shard."""
    BUDGET = "budget"
    """The user's: more rows failed than the run may lose; it ends."""
    INPUT = "input"
    """The user's: a file of the source cannot be read."""
    IMPORT = "import"
    """The user's: the capability could not be built at all; no shard can succeed."""
    FOREIGN = "foreign"
    """Somebody's: the part's name is taken by something that this run did not write."""
    STORAGE = "storage"
    """The environment's: what is not committed may go through the next time."""


GIVEN_UP = frozenset({Cause.CAPABILITY, Cause.ROW, Cause.INPUT})
"""Causes for which a shard that has had its attempts is set apart."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a shard is not committed.

    Attributes:
        cause: Whose move it is.
        reason: One line for people.
        traceback: Of the user's code, for `-v`; may be empty.
        attempts: How many there were.
        overtaken: Rows have other types than those that another worker has agreed on meanwhile.
            Knowing these, the next attempt sets aside the rows alone.
    """

    cause: Cause
    reason: str
    traceback: str = ""
    attempts: int = 1
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class PutOff:
    """What is known of a shard whose rows name no column, for a sink whose schema nobody knows yet.

    The driver commits it once a part with rows has fixed the schema; nothing is computed again.

    Attributes:
        rows_in: Rows read, with those set aside.
        rows_failed: Rows set aside.
        errors: Name of the file of these; empty for none.
        errors_sha256: Of that file; empty for none.
        source_hash: Of what was read.
        bare_rows: Rows to write that have no columns of their own.
    """

    rows_in: int
    rows_failed: int = 0
    errors: str = ""
    errors_sha256: str = ""
    source_hash: str = ""
    bare_rows: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The end of one attempt at one shard: committed, failed, or put off. Exactly one is set.

    Attributes:
        shard: Id.
        sentinel: The one that counts, of a shard that is committed.
        failure: Why it is not.
        put_off: What to commit it with later.
    """

    shard: int
    sentinel: Sentinel | None = None
    failure: Failure | None = None
    put_off: PutOff | None = None

    @property
    def is_given_up(self) -> bool:
        """Tell whether it failed by the user's side."""
        return self.failure is not None and self.failure.cause in GIVEN_UP

    def after(self, attempts: int) -> Receipt:
        """Return the receipt of a failure after so many *attempts*."""
        if self.failure is None:
            return self
        return replace(self, failure=replace(self.failure, attempts=attempts))

    def scrubbed(self) -> Receipt:
        """Return the receipt without the secrets of the spec: what it says is stored and shown."""
        if self.failure is None:
            return self
        reason, traceback = scrubbed(self.failure.reason), scrubbed(self.failure.traceback)
        return replace(self, failure=replace(self.failure, reason=reason, traceback=traceback))
