"""The unit of work, of retry, of commit and of resume: slices of one or several source files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Slicing(StrEnum):
    """What the `start` and `stop` of a slice count."""

    BYTES = "bytes"
    """Byte offsets of an uncompressed file. A row belongs to the slice that has its first byte."""
    ROW_GROUPS = "row_groups"
    """Row groups of a Parquet file."""
    ROWS = "rows"
    """Rows of a Parquet file."""
    FILE = "file"
    """The whole file; `start` and `stop` are 0 and its size in bytes."""
    HEAD = "head"
    """The first `stop` rows of a compressed file, which cannot be cut."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters of the shard `start` that are in this file. The first such slice of a shard has their
    number in all its files as `stop`, the others 0: which file they are in is read when they are."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous slice of one source file.

    Attributes:
        uri: Absolute URI of the file.
        slicing: What *start* and *stop* count.
        start: First unit of the slice.
        stop: One past the last unit.
        size: Size of the whole file, in bytes.
        identity: ETag or modification time of the file, as listed when the slice was planned.
        rows: Rows in the slice; None where planning did not count them.
        weight: Estimated bytes to read.
        modified: When the file was last written, as listed when the slice was planned, in microseconds
            since 1970 UTC; None if the store has no time.
    """

    uri: str
    slicing: Slicing
    start: int
    stop: int
    size: int
    identity: str
    rows: int | None = None
    weight: int = 0
    modified: int | None = None

    def __str__(self) -> str:
        if self.slicing is Slicing.FILE:
            return self.uri
        if self.slicing is Slicing.DEAD_LETTERS:
            return f"{self.uri}, dead letters of shard {self.start}"
        return f"{self.uri}, {self.slicing} {self.start}-{self.stop}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Slices of one or several source files, whose rows make one part.

    Attributes:
        id: Number from 0. The first plan with these slices assigns it; later plans keep it.
        slices: The slices, at least one, in the order in which their rows are read.
        rows: Rows in all slices; None where planning did not count them all.
        weight: Estimated bytes to read: the largest shards are dispatched first.
    """

    id: int
    slices: Sequence[Slice]
    rows: int | None = field(init=False, compare=False)
    weight: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        rows = [piece.rows for piece in self.slices]
        known = [count for count in rows if count is not None]
        object.__setattr__(self, "rows", sum(known) if len(known) == len(rows) else None)
        object.__setattr__(self, "weight", sum(piece.weight for piece in self.slices))

    @property
    def first(self) -> Slice:
        """The first of its slices, which stands for the shard where there is room for one."""
        return self.slices[0]

    @property
    def retries(self) -> int | None:
        """Id of the shard whose dead letters this one makes again; None if it reads its slices."""
        return self.first.start if self.first.slicing is Slicing.DEAD_LETTERS else None

    @property
    def source(self) -> str:
        """The URI of its file, or of the first one and how many others there are."""
        others = len(self.slices) - 1
        return f"{self.first.uri} and {others:,} more" if others else self.first.uri

    def __str__(self) -> str:
        others = len(self.slices) - 1
        return f"shard {self.id} ({self.first}{f' and {others:,} more' if others else ''})"
