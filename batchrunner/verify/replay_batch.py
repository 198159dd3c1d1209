"""Batches for a replay: rows from the second readers, in the form that the capability takes.

The second readers decide which rows there are, and in which order. The form of the values is a promise
to the capability, so the worker's code converts them: the capability is called as in the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Protocol

from batchrunner.formats.contract import Records
from batchrunner.verify.reading import Folders, Numbers, with_folders
from batchrunner.worker.batch import MAX_BATCH_BYTES, InputTypes
from batchrunner.worker.joining import JOINED_BYTES

if TYPE_CHECKING:
    import pyarrow as pa


class ReplayBatch(Protocol):
    """A batch that a `Caller` can call the capability with, and that can be halved."""

    @property
    def input_types(self) -> InputTypes:
        """The types that the source declares for the rows."""

    @property
    def first(self) -> int:
        """Position of the first row in the source."""

    def __len__(self) -> int:
        """Count the rows."""

    @property
    def counts(self) -> list[int]:
        """How many of the rows each shard has: all rows are of one."""

    def rows(self) -> list[dict[str, Any]]:
        """Return new copies of the rows, which the receiver may change."""

    def in_format(self, batch_format: str) -> Any:
        """Return the rows in a *batch_format*: `rows`, `pyarrow`, `pandas` or `numpy`."""

    def halves(self) -> tuple[ReplayBatch, ReplayBatch]:
        """Return the first and the second half."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records, such as lines of JSON, for a capability that takes rows.

    Attributes:
        records: The records, with their positions.
        columns: Columns to keep, or None for all.
        folders: Columns that the folders of the file name.
        row_of: Returns the row that a record holds.
        types_of: Returns the types of that row, or None if its values show them.
    """

    records: Records
    columns: tuple[str, ...] | None
    folders: Folders
    row_of: Callable[[bytes], dict[str, Any]]
    types_of: Callable[[bytes], pa.Schema | None]

    @property
    def input_types(self) -> InputTypes:
        types = self.types()
        return InputTypes() if types is None else InputTypes((types,))

    def types(self) -> pa.Schema | None:
        """Return the types of the columns of all rows; None if their values show them."""
        types = self.types_of(self.records[0][1])
        if types is None:
            return None
        import pyarrow as pa

        known = {field.name: field.type for field in types}
        known = {**known, **{name: pa.string() for name in self.folders if name not in known}}
        return pa.schema([f for f in known.items() if self.columns is None or f[0] in self.columns])

    @property
    def first(self) -> int:
        return self.records[0][0]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def counts(self) -> list[int]:
        return [len(self)]

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
    """Rows of a table, with their positions in the source."""

    table: pa.Table
    numbers: Sequence[int]
    input_types: InputTypes

    @property
    def first(self) -> int:
        return self.numbers[0]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def counts(self) -> list[int]:
        return [len(self)]

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
        return TableBatch(some, self.numbers[start:stop], self.input_types)

    def and_then(self, other: TableBatch) -> TableBatch:
        """Return these rows and those of *other*, which has the same columns."""
        from batchrunner.formats.columns import joined

        table = joined([self.table, other.table])
        return TableBatch(table, [*self.numbers, *other.numbers], self.input_types)


def record_batches(records: Iterator[RecordBatch], *, size: int) -> Iterator[RecordBatch]:
    """Yield *records* regrouped into batches of up to *size* rows, each of files in one folder."""
    pending: RecordBatch | None = None
    nbytes = 0
    for some in records:
        if pending and replace(pending, records=some.records) != some:
            yield pending
            pending = None
        for at, record in some.records:
            if pending is None:
                pending, nbytes = replace(some, records=[]), 0
            pending.records.append((at, record))
            nbytes += len(record)
            if len(pending) == size or nbytes >= MAX_BATCH_BYTES:
                yield pending
                pending = None
    if pending:
        yield pending


def tables_of_records(records: Iterator[RecordBatch]) -> Iterator[TableBatch]:
    """Yield *records* as tables, halving them until a table holds them exactly.

    Small ones are joined, as the worker joins the chunks of small files.

    Raises:
        ValueError: No table can hold a row.
    """
    filled = (batch for batch in records if batch.records)
    for have_types, some in groupby(filled, key=lambda batch: batch.types() is not None):
        made = _typed if have_types else _inferred
        yield from made(some)


def _typed(records: Iterator[RecordBatch]) -> Iterator[TableBatch]:
    """Yield *records* in the types that their format declares, which are the same for those of one file."""
    import pyarrow as pa

    for batch in records:
        table = pa.Table.from_pylist(batch.rows(), schema=batch.types())
        yield TableBatch(table, [at for at, _ in batch.records], batch.input_types)


def _inferred(records: Iterator[RecordBatch]) -> Iterator[TableBatch]:
    from batchrunner.formats.shapes import tables_of

    for some in _joined(records):
        at = [at for batch in some for at, _ in batch.records]
        for table in tables_of([row for batch in some for row in batch.rows()]):
            start, stop, shape = table.segment.start, table.segment.stop, table.segment.shape
            input_types = InputTypes((shape.schema,), shape.absent) if shape else InputTypes()
            yield TableBatch(table.rows(start, stop), at[start:stop], input_types)


def _joined(records: Iterator[RecordBatch]) -> Iterator[list[RecordBatch]]:
    held: list[RecordBatch] = []
    nbytes = 0
    for some in records:
        size = sum(len(record) for _, record in some.records)
        if held and nbytes + size > JOINED_BYTES:
            yield held
            held, nbytes = [], 0
        held.append(some)
        nbytes += size
    if held:
        yield held


def selected_rows(
    tables: Iterator[tuple[int, pa.Table]], *, wanted: Numbers | None, failed: Numbers
) -> Iterator[TableBatch]:
    """Yield the *wanted* rows of *tables* that have not *failed*; None wants all.

    Each table comes with the number of its first row.
    """
    for first, table in tables:
        numbers = range(first, first + len(table))
        chosen = [n for n in numbers if n not in failed and (wanted is None or n in wanted)]
        for start, stop in _consecutive(chosen):
            some = table.slice(start - first, stop - start)
            yield TableBatch(some, range(start, stop), InputTypes((table.schema,)))


def table_batches(pieces: Iterator[TableBatch], *, size: int) -> Iterator[TableBatch]:
    """Yield *pieces* regrouped into batches of *size*; one also ends where the types change."""
    pending: TableBatch | None = None
    for piece in pieces:
        if pending and pending.input_types == piece.input_types:
            pending = pending.and_then(piece)
        else:
            if pending:
                yield pending
            pending = piece
        while len(pending) >= size or pending.table.nbytes >= MAX_BATCH_BYTES:
            yield pending.slice(0, size)
            pending = pending.slice(min(size, len(pending)), len(pending))
    if pending:
        yield pending


def _consecutive(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first number and one past the last of each stretch of consecutive *numbers*.

    Callers slice tables by these, because Arrow cannot take single rows of every type.
    """
    breaks = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    for start, stop in pairwise([0, *breaks, len(numbers)] if numbers else []):
        yield numbers[start], numbers[stop - 1] + 1
