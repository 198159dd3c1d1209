"""Batches for a replay: rows as our own readers gave them, in the shape that a capability takes.

Which rows there are, and in which order, is found out by our own readers. How values are handed over
is a promise to the capability, so the code that keeps it makes them: it is called as it was called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from batchrunner.formats.contract import Records
from batchrunner.verify.reading import Folders, Numbers, with_folders
from batchrunner.worker.batch import MAX_BATCH_BYTES, Given

if TYPE_CHECKING:
    import pyarrow as pa


class ReplayBatch(Protocol):
    """What a `Caller` asks of a batch, and halves of it."""

    @property
    def given(self) -> Given:
        """What is known of the rows."""

    @property
    def first(self) -> int:
        """Where the first row stands in the source."""

    def __len__(self) -> int:
        """Count the rows."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, made anew each time: the receiver may change them."""

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`."""

    def halves(self) -> tuple[ReplayBatch, ReplayBatch]:
        """Return the first and the second half."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records, such as lines of JSON, for a capability that takes rows.

    Attributes:
        records: With their positions.
        columns: Keys to keep, or None for all.
        folders: What the folders of the file say.
        row_of: Returns the row that a record holds.
    """

    records: Records
    columns: tuple[str, ...] | None
    folders: Folders
    row_of: Callable[[bytes], dict[str, Any]]

    @property
    def given(self) -> Given:
        return Given()

    @property
    def first(self) -> int:
        return self.records[0][0]

    def __len__(self) -> int:
        return len(self.records)

    def rows(self) -> list[dict[str, Any]]:
        rows = (self.row_of(record) for _, record in self.records)
        if self.columns is not None:
            rows = ({name: row[name] for name in self.columns if name in row} for row in rows)
        return [with_folders(row, self.folders) for row in rows]

    def in_format(self, batch_format: str) -> Any:
        assert batch_format == "rows", "tables are made of whole blocks, see table_batches"  # noqa: S101
        return self.rows()

    def halves(self) -> tuple[RecordBatch, RecordBatch]:
        middle = len(self) // 2
        first, second = self.records[:middle], self.records[middle:]
        return replace(self, records=first), replace(self, records=second)


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Rows of a table, with where they stand."""

    table: pa.Table
    numbers: Sequence[int]
    given: Given

    @property
    def first(self) -> int:
        return self.numbers[0]

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self) -> list[dict[str, Any]]:
        from batchrunner.formats.columns import table_to_rows

        return table_to_rows(self.table)

    def in_format(self, batch_format: str) -> Any:
        from batchrunner.worker.batch import in_format

        return self.rows() if batch_format == "rows" else in_format(self.table, batch_format)

    def halves(self) -> tuple[TableBatch, TableBatch]:
        middle = len(self) // 2
        return self.slice(0, middle), self.slice(middle, len(self))

    def slice(self, start: int, stop: int) -> TableBatch:
        """Return rows *start* to *stop*."""
        some = self.table.slice(start, stop - start)
        return TableBatch(some, self.numbers[start:stop], self.given)

    def and_then(self, other: TableBatch) -> TableBatch:
        """Return these rows and those of *other*, which has the same columns."""
        from batchrunner.formats.columns import joined

        table = joined([self.table, other.table])
        return TableBatch(table, [*self.numbers, *other.numbers], self.given)


def record_batches(
    records: Iterator[Records], *, size: int, like: RecordBatch
) -> Iterator[RecordBatch]:
    """Yield *records* in batches of *size* *like* the one given."""
    held: Records = []
    held_bytes = 0
    for at, record in (item for some in records for item in some):
        held.append((at, record))
        held_bytes += len(record)
        if len(held) == size or held_bytes >= MAX_BATCH_BYTES:
            yield replace(like, records=held)
            held, held_bytes = [], 0
    if held:
        yield replace(like, records=held)


def tables_of_records(records: Iterator[Records], *, like: RecordBatch) -> Iterator[TableBatch]:
    """Yield *records* as few tables: cut where one cannot hold them all.

    Raises:
        ValueError: There is none for a row.
    """
    from batchrunner.formats.shapes import tables_of

    for some in filter(None, records):
        for found in tables_of(replace(like, records=some).rows()):
            start, stop, shape = found.segment.start, found.segment.stop, found.segment.shape
            given = Given((shape.schema,), shape.absent) if shape else Given()
            numbers = [at for at, _ in some[start:stop]]
            yield TableBatch(found.rows(start, stop), numbers, given)


def picked(
    tables: Iterator[tuple[int, pa.Table]], *, wanted: Numbers | None, aside: Numbers
) -> Iterator[TableBatch]:
    """Yield the rows of *tables*, each with the number of its first: those *wanted*, not *aside*."""
    for first, table in tables:
        every = range(first, first + len(table))
        ours = [n for n in every if n not in aside and (wanted is None or n in wanted)]
        for start, stop in _runs(ours):
            some = table.slice(start - first, stop - start)
            yield TableBatch(some, range(start, stop), Given((table.schema,)))


def table_batches(pieces: Iterator[TableBatch], *, size: int) -> Iterator[TableBatch]:
    """Yield *pieces* regrouped into batches of *size*; one also ends where the columns change."""
    held: TableBatch | None = None
    for piece in pieces:
        if held and held.given == piece.given:
            held = held.and_then(piece)
        else:
            if held:
                yield held
            held = piece
        while len(held) >= size or held.table.nbytes >= MAX_BATCH_BYTES:
            yield held.slice(0, size)
            held = held.slice(min(size, len(held)), len(held))
    if held:
        yield held


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last of each run of neighbours.

    Slices of these, because Arrow cannot take single rows of every type.
    """
    breaks = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    for start, stop in pairwise([0, *breaks, len(numbers)] if numbers else []):
        yield numbers[start], numbers[stop - 1] + 1
