"""Chunks: neighbouring rows read from a source file, each with its position in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

MAX_RAW_BYTES = 4096
"""How many bytes of a row its dead letter keeps."""

MAX_ROW_BYTES = 64 << 20
"""The largest row that is made of a whole file, or of members of a tar. A worker holds some ten copies of
it on its way from the source into a part: 640 MiB, measured with files of 60 MB into Parquet."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row stands in its file.

    Attributes:
        unit: "byte" (offset in the uncompressed file) or "row" (number, from 0).
        at: The offset or the number.
        raw: The row as the file has it, or as JSON (Parquet): at most `MAX_RAW_BYTES` of it.
    """

    unit: str
    at: int
    raw: bytes

    def __str__(self) -> str:
        return f"{self.unit} {self.at:,}"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read."""

    position: Position
    reason: str


class UnreadableRowError(ValueError):
    """A row, or one of several, was read, but has a value that Python cannot hold."""


Absent = Mapping[str, tuple[bool, "Absent"]]
"""By key: whether null in a table means that a row lacks it, and the same for keys inside."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The schema of a table of rows, and what its nulls mean.

    Attributes:
        schema: The schema of the table.
        absent: Which nulls mean that a row lacks the key.
        is_inferred: Whether the types come from the values alone: a null then has its neighbours' type.
    """

    schema: pa.Schema
    absent: Absent = field(default_factory=dict)
    is_inferred: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of a chunk that go into one table.

    Attributes:
        start: Index of the first row.
        stop: One past the last row.
        shape: The shape of the table; None for a row that no table can hold. Tables of equal shape may
            be joined.
    """

    start: int
    stop: int
    shape: Shape | None


class Chunk(Protocol):
    """Some rows, and those between them that could not be read."""

    @property
    def bad(self) -> tuple[BadRow, ...]:
        """The rows that could not be read."""

    @property
    def types(self) -> pa.Schema | None:
        """The types of the columns if the file records them; None if only its values show them."""

    @property
    def nbytes(self) -> int:
        """About how many bytes the rows take."""

    def __len__(self) -> int:
        """Count the rows that could be read."""

    def rows(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*. Call it once for a row: the receiver may change it.

        Raises:
            UnreadableRowError: A row has a value that Python cannot hold.
        """

    def reread(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop* again, as they were before the receiver changed them."""

    def segments(self) -> Sequence[Segment]:
        """Cut the rows into segments that go into one table each, in order and without gaps."""

    def table(self, start: int, stop: int) -> pa.Table:
        """Return rows *start* to *stop*, which are of one segment, as a table.

        Raises:
            SchemaError: No table can hold the row.
        """

    def positions(self) -> Sequence[int]:
        """Return where each row stands in its file, as `Position.at`."""

    def locate(self, index: int) -> Position:
        """Return the position of row *index* in its file, with its raw content. Never raises."""
