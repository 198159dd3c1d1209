"""What `verify` has to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint.incarnations import is_record_key


class FindingKind(StrEnum):
    """What is wrong."""

    SENTINEL = "sentinel"
    """A sentinel is not whole, was edited, or is of something else."""
    MISSING = "missing"
    """A sentinel stands without its part."""
    SIZE = "size"
    """The part has another size than its sentinel says."""
    CHECKSUM = "checksum"
    """The part has other bytes than its sentinel says."""
    ROWS_OUT = "rows_out"
    """The part has other rows than its sentinel says."""
    ROWS_IN = "rows_in"
    """The sentinel counts other rows than the shard's slice of the source has."""
    DEAD_LETTERS = "dead_letters"
    """The rows set aside are not all kept."""
    UNADOPTED = "unadopted"
    """A part has the name of a shard, but no attempt of this run wrote it."""
    ORPHAN = "orphan"
    """An object in the sink looks like data and belongs to no shard."""
    DUPLICATE = "duplicate"
    """The same, and it has the bytes of a committed part."""
    MANIFEST = "manifest"
    """The manifest is not what the sentinels say."""
    SUCCESS = "success"
    """The output is declared complete, and is not."""
    PLAN = "plan"
    """The shards do not cover the source exactly once."""
    RECORD = "record"
    """A record of the checkpoint cannot be read, and the run cannot go on without it."""
    SPARE = "spare"
    """A record of the checkpoint cannot be read, and the run can do without it."""
    KEY_MISSING = "key_missing"
    """A key of the source is less often in the part of its shard than it was read."""
    KEY_DOUBLED = "key_doubled"
    """A key of the source is more often in a part than its shard has read it."""
    KEY_UNKNOWN = "key_unknown"
    """A key is in the output, and nowhere in the source."""
    REPLAY = "replay"
    """The capability gives other rows than those in the part, or fails for them."""

    @property
    def word(self) -> str:
        """What it says of a key, such as `missing`."""
        return self.value.removeprefix("key_")


REDONE = frozenset(
    {
        FindingKind.SENTINEL,
        FindingKind.MISSING,
        FindingKind.SIZE,
        FindingKind.CHECKSUM,
        FindingKind.ROWS_OUT,
        FindingKind.ROWS_IN,
        FindingKind.DEAD_LETTERS,
        FindingKind.UNADOPTED,
        FindingKind.KEY_MISSING,
        FindingKind.KEY_DOUBLED,
        FindingKind.KEY_UNKNOWN,
        FindingKind.REPLAY,
    }
)
"""Kinds of damage that are mended by making the shard again."""

ASIDE = frozenset({FindingKind.ORPHAN, FindingKind.DUPLICATE})
"""Kinds of damage that are mended by moving an object away."""

HOPELESS = frozenset({FindingKind.PLAN, FindingKind.RECORD})
"""Kinds of damage that nothing here can mend, but for a record that can be made again."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect.

    Attributes:
        kind: What is wrong.
        part: Name of the object it is about, in the sink or in the checkpoint.
        why: One line for people.
        shard: Id; None when it is about no shard in particular.
    """

    kind: FindingKind
    part: str
    why: str
    shard: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values: shard, part, kind, why."""
        return {
            "shard": self.shard,
            "part": self.part,
            "kind": str(self.kind),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what was found.

    Attributes:
        findings: The defects, by shard.
        notes: What is no defect and yet worth knowing, a line each.
        shards: How many there are.
        committed: How many of them have a whole sentinel.
        rows_in: Rows read for these, by their sentinels.
        rows_out: Rows in their parts, by their sentinels.
        rows_failed: Rows set aside for good, by their sentinels.
        left_out: How many committed shards no key or replay could be compared of, though asked for:
            their source file changed, is gone or cannot be read.
    """

    findings: Sequence[Finding]
    notes: Sequence[str] = ()
    shards: int = 0
    committed: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    left_out: int = 0

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong, and all was looked at that was asked for."""
        return not self.findings and not self.left_out

    @property
    def is_lost(self) -> bool:
        """Tell whether no repair is of use: the run's record is damaged, of which nothing tells."""
        return any(f.kind is FindingKind.RECORD and is_record_key(f.part) for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            **asdict(self),
            "findings": [finding.to_dict() for finding in self.findings],
            "ok": self.ok,
        }
