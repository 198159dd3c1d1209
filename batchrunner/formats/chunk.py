"""Neighbouring rows as a source hands them on, with the way back to where they stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

MAX_RAW_BYTES = 4096
"""How much of a row a dead letter keeps."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row stands in its file.

    Attributes:
        unit: "byte" (offset in the uncompressed file) or "row" (number, from 0).
        at: The offset or the number.
        raw: The row as it stands there, at most `MAX_RAW_BYTES` of it.
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
    """A row, or one of some rows, can be read but is nothing that Python holds."""


Absent = Mapping[str, tuple[bool, "Absent"]]
"""By key: whether null in a table means that the key is absent, and the same of what is below it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What rows have in common that go into one table.

    Attributes:
        schema: Of the table.
        absent: What its nulls mean.
        is_inferred: Nothing but values say the types: one that is null has the type of its neighbours.
    """

    schema: pa.Schema
    absent: Absent = field(default_factory=dict)
    is_inferred: bool = False


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring rows of a chunk that go into one table.

    Attributes:
        start: The first.
        stop: One past the last.
        shape: Runs of one shape may be joined; None for a row that no table can hold.
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
        """The types of the columns where the file says them, and not only its values do."""

    @property
    def nbytes(self) -> int:
        """About how many bytes the rows take."""

    def __len__(self) -> int:
        """Count the rows that could be read."""

    def rows(self, start: int, stop: int) -> list[Row]:
        """Return rows *start* to *stop*. The receiver may change them, so ask once.

        Raises:
            UnreadableRowError: One of them holds a value that Python does not.
        """

    def reread(self, start: int, stop: int) -> list[Row]:
        """Return the same rows again, as they were before the receiver changed them."""

    def segments(self) -> Sequence[Segment]:
        """Cut the rows into segments that go into one table each, in order and without gaps."""

    def table(self, start: int, stop: int) -> pa.Table:
        """Return rows *start* to *stop*, which are of one segment, as a table.

        Raises:
            SchemaError: There is none that holds the row.
        """

    def positions(self) -> Sequence[int]:
        """Return where each row stands in its file, as `Position.at`."""

    def locate(self, index: int) -> Position:
        """Return where row *index* stands in its file, and how it looks there. Never raises."""
