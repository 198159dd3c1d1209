"""Findings: the defects that `verify` reports, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint.incarnations import is_record_key


class FindingKind(StrEnum):
    """The kind of a defect."""

    SENTINEL = "sentinel"
    """A sentinel is torn, was edited, or belongs to another shard or run."""
    MISSING = "missing"
    """A sentinel has no part."""
    SIZE = "size"
    """The size of the part differs from its sentinel's."""
    CHECKSUM = "checksum"
    """The bytes of the part differ from its sentinel's checksum."""
    ROWS_OUT = "rows_out"
    """The part cannot be decoded, or its count of rows differs from its sentinel's."""
    ROWS_IN = "rows_in"
    """The count of rows in the shard's slice of the source differs from its sentinel's."""
    DEAD_LETTERS = "dead_letters"
    """The file of dead letters is missing or damaged."""
    UNADOPTED = "unadopted"
    """A part has the name of a shard and no sentinel, and nothing proves that this run wrote it."""
    ORPHAN = "orphan"
    """An object in the sink looks like data and belongs to no shard."""
    DUPLICATE = "duplicate"
    """An orphan has the bytes of a committed part."""
    MANIFEST = "manifest"
    """The manifest disagrees with the sentinels."""
    SUCCESS = "success"
    """`_SUCCESS` exists, and the output is not complete."""
    PLAN = "plan"
    """The shards do not cover the source exactly once."""
    RECORD = "record"
    """A document of the checkpoint is damaged, and the run cannot go on without it."""
    SPARE = "spare"
    """A document of the checkpoint is damaged, and the run can go on without it."""
    KEY_MISSING = "key_missing"
    """A key is in the part less often than in the shard's rows of the source."""
    KEY_DOUBLED = "key_doubled"
    """A key of the source is in the part more often than in the shard's rows of the source."""
    KEY_UNKNOWN = "key_unknown"
    """A key of the output is nowhere in the source."""
    REPLAY = "replay"
    """The capability returns other rows than those in the part, or fails for a row."""

    @property
    def word(self) -> str:
        """The kind in messages about keys: `missing` for KEY_MISSING, for example."""
        return self.value.removeprefix("key_")


RECOMPUTED = frozenset(
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
"""Kinds that are repaired by computing the shard again."""

MOVED_ASIDE = frozenset({FindingKind.ORPHAN, FindingKind.DUPLICATE})
"""Kinds that are repaired by moving the object to `_damaged/`."""

HOPELESS = frozenset({FindingKind.PLAN, FindingKind.RECORD})
"""Kinds that cannot be repaired, except for a document that can be rebuilt from the others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect.

    Attributes:
        kind: The kind of defect.
        part: Name of the defective object, in the sink or in the checkpoint.
        why: A description for the user, in one line.
        shard: Id of the defective shard; None for a defect of the whole run.
    """

    kind: FindingKind
    part: str
    why: str
    shard: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values: shard, part, kind, why."""
        return {
            "shard": self.shard,
            "part": self.part,
            "kind": str(self.kind),
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes:
        findings: The defects, by shard.
        notes: Observations that are no defects, such as shards that are pending; a line each.
        shards: Count of all shards.
        committed: Count of shards with an undamaged sentinel.
        rows_in: Rows read for the committed shards, by their sentinels.
        rows_out: Rows in their parts, by their sentinels.
        rows_failed: Rows that failed and were not retried with success, by their sentinels.
        left_out: Count of committed shards that `--key` or `--replay` could not compare: their source
            file changed, is gone or cannot be read.
        trial: The option of the trial that it is, such as `--limit 3`; empty for a run itself.
    """

    findings: Sequence[Finding]
    notes: Sequence[str] = ()
    shards: int = 0
    committed: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    left_out: int = 0
    trial: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are no findings, and every requested check could be made."""
        return not self.findings and not self.left_out

    @property
    def is_lost(self) -> bool:
        """Whether no repair can help: the run's own document is damaged, and cannot be rebuilt."""
        return any(f.kind is FindingKind.RECORD and is_record_key(f.part) for f in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            **asdict(self),
            "findings": [finding.to_dict() for finding in self.findings],
            "ok": self.ok,
        }
