"""The unit of work, of retry, of commit and of resume: a slice of one source file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Slicing(StrEnum):
    """What the `start` and `stop` of a shard count."""

    BYTES = "bytes"
    """Byte offsets of an uncompressed file. A row belongs to the shard that has its first byte."""
    ROW_GROUPS = "row_groups"
    """Row groups of a Parquet file."""
    ROWS = "rows"
    """Rows of a Parquet file."""
    FILE = "file"
    """The whole file; `start` and `stop` are 0 and its size in bytes."""
    HEAD = "head"
    """The first `stop` rows of a compressed file, which cannot be cut."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters to retry: `start` is the shard that they are from, `stop` is their number."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A contiguous slice of one source file.

    Attributes:
        id: Number from 0. The first plan with this slice assigns it; later plans keep it.
        uri: Absolute URI of the file.
        slicing: What *start* and *stop* count.
        start: First unit of the slice.
        stop: One past the last unit.
        size: Size of the whole file, in bytes.
        identity: ETag or modification time of the file, as listed when the shard was planned.
        rows: Rows in the slice; None where planning did not count them.
        weight: Estimated bytes to read: the largest shards are dispatched first.
        modified: When the file was last written, as listed when the shard was planned, in microseconds
            since 1970 UTC; None if the store has no time.
    """

    id: int
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
        span = f", {self.slicing} {self.start}-{self.stop}"
        if self.slicing is Slicing.FILE:
            span = ""
        elif self.slicing is Slicing.DEAD_LETTERS:
            span = f", dead letters of shard {self.start}"
        return f"shard {self.id} ({self.uri}{span})"
