"""Reads the rows of Parquet files."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import ShardFailedError, StorageError, describe
from batchrunner.formats.chunk import (
    MAX_RAW_BYTES,
    BadRow,
    Position,
    Row,
    Segment,
    Shape,
    UnreadableRowError,
)
from batchrunner.formats.columns import table_to_rows
from batchrunner.formats.damaged_file import MEND, MEND_OR_MOVE
from batchrunner.formats.int96 import UNIT, InStep, inexact_rows, int96_columns
from batchrunner.formats.partitions import Partition, add_to_table, contradicting_rows, wanted
from batchrunner.formats.unsound import shown, unsound_rows, with_own_words, without_rows
from batchrunner.shard import Slice, Slicing

READ_ROWS = 16_384
"""How many rows are decoded at a time, which bounds memory inside a row group."""

_DECRYPT = "it is encrypted: write it again without, or leave the encrypted columns out with source.columns"


@dataclass(frozen=True)  # without slots, so that it can keep its size
class TableChunk:
    """Some rows of a Parquet file.

    Attributes:
        content: The rows.
        numbers: The number of each row in its file.
        bad: The rows between them with a value that is invalid for its column's type.
    """

    content: pa.Table
    numbers: Sequence[int]
    bad: tuple[BadRow, ...] = ()

    @property
    def types(self) -> pa.Schema:
        schema: pa.Schema = self.content.schema
        return schema

    @cached_property
    def nbytes(self) -> int:
        return int(self.content.nbytes)

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        try:
            return table_to_rows(self.table(start, stop))
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            # Such as a date in the year 10,000: valid for its type, and an error of that row only.
            raise UnreadableRowError(
                f"Python cannot hold it: {describe(error)}; use batch_format: pyarrow and a Parquet sink"
            ) from error

    reread = rows

    def segments(self) -> tuple[Segment, ...]:
        return (Segment(0, len(self), Shape(self.content.schema)),)

    def table(self, start: int, stop: int) -> pa.Table:
        return self.content.slice(start, stop - start)

    def positions(self) -> Sequence[int]:
        return self.numbers

    def locate(self, index: int) -> Position:
        return _position(self.content, index, self.numbers[index])


def _position(table: pa.Table, index: int, number: int) -> Position:
    return Position("row", number, shown(table.slice(index, 1))[:MAX_RAW_BYTES])


def read_parquet(
    file: BinaryIO,
    piece: Slice,
    *,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[TableChunk]:
    """Yield the rows of *piece*, in file order, decoding a few thousand at a time.

    Args:
        file: The whole file.
        piece: The slice of the file to read.
        columns: The columns to read, or None for all.
        partition: Columns that the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The file is no Parquet, or lacks one of *columns*; a page does not match its
            checksum; two columns have the same name.
    """
    try:
        partition = wanted(partition, columns)
        source = ParquetSource(file, columns, partition)
        groups, first, skip, take = _extent(source.metadata, piece)
        for table, faults in rows_between(source.read(groups, READ_ROWS), skip=skip, take=take):
            yield chunk_of_table(table, faults, first, partition)
            first += table.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, StorageError):
            raise
        way_out = _DECRYPT if "decrypt" in str(error).lower() else MEND
        raise ShardFailedError(
            f"{piece.uri} cannot be read as Parquet: {error}; {way_out}"
        ) from error


def chunk_of_table(table: pa.Table, faults: Faults, first: int, partition: Partition) -> TableChunk:
    """Return *table* as a chunk, without the rows that have *faults*; *first* is its first row."""
    numbers: Sequence[int] = range(first, first + table.num_rows)
    bad = [BadRow(_position(table, i, first + i), why) for i, why in sorted(faults.items())]
    if faults:
        numbers = [number for i, number in enumerate(numbers) if i not in faults]
        table = without_rows(table, faults)
    return TableChunk(add_to_table(with_own_words(table), partition), numbers, tuple(bad))


def _extent(metadata: pq.FileMetaData, piece: Slice) -> tuple[list[int], int, int, int]:
    """Return the row groups to read, the number of the first row, and how many to skip and take."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if piece.slicing is Slicing.FILE:
        return list(range(len(sizes))), 0, 0, sum(sizes)
    if piece.slicing is Slicing.ROW_GROUPS:
        groups = range(piece.start, piece.stop)
        first = sum(sizes[: piece.start])
        return list(groups), first, 0, sum(sizes[piece.start : piece.stop])
    ends = [sum(sizes[: group + 1]) for group in range(len(sizes))]
    groups_in = [
        group
        for group, end in enumerate(ends)
        if end > piece.start and end - sizes[group] < piece.stop
    ]
    before = ends[groups_in[0]] - sizes[groups_in[0]] if groups_in else 0
    return groups_in, piece.start, piece.start - before, piece.stop - piece.start


def rows_between(
    pieces: Iterator[tuple[pa.Table, Faults]], *, skip: int, take: int
) -> Iterator[tuple[pa.Table, Faults]]:
    """Yield *take* rows of *pieces* after the first *skip*."""
    for table, faults in pieces:
        rows = table.slice(skip, take)
        inside = range(skip, skip + rows.num_rows)
        skip, take = max(skip - table.num_rows, 0), take - rows.num_rows
        if rows.num_rows:
            yield rows, {i - inside.start: why for i, why in faults.items() if i in inside}


def count_rows(file: BinaryIO) -> int:
    """Return the row count in the footer; if there is none, pyarrow raises."""
    return int(pq.read_metadata(file).num_rows)


Faults = dict[int, str]
"""By row number: what is wrong with the row."""


class ParquetSource:
    """Reads columns of a file by their exact names: Arrow takes `a.b` for a field of `a`, too."""

    def __init__(
        self, file: BinaryIO, columns: tuple[str, ...] | None, partition: Partition
    ) -> None:
        """Open *file* to read *columns*, or all if None; those of *partition* may be missing.

        Raises:
            ShardFailedError: A column is missing, or two have one name.
        """
        # One for all readers: it holds the lock under which they seek and read.
        self._file = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, mode="r")
        main = self._opened(UNIT)
        self.metadata = main.metadata
        have = main.schema_arrow.names
        self._partition = partition
        elsewhere = {name for name, _ in partition}
        check_columns(main.schema_arrow, columns, elsewhere)
        self._columns = [name for name in have if columns is None or name in columns]
        self._main = main
        instants = [name for name in int96_columns(main) if name in self._columns]
        units = ("ns", "s") if instants else ()
        self._others = [(self._opened(unit), instants) for unit in units]

    def _opened(self, unit: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._file, coerce_int96_timestamp_unit=unit, page_checksum_verification=True
        )

    def read(self, groups: list[int], rows: int) -> Iterator[tuple[pa.Table, Faults]]:
        """Yield tables of the rows of *groups*, of up to *rows* rows, each with its bad rows."""
        others = [InStep(_batches(source, groups, names, rows)) for source, names in self._others]
        for batch in _batches(self._main, groups, self._columns, rows):
            table = pa.Table.from_batches([batch])
            faults = unsound_rows(table) | contradicting_rows(table, self._partition)
            if others:
                faults |= inexact_rows(table, *(one.next(table.num_rows) for one in others))
            yield table, faults


def _batches(
    source: pq.ParquetFile, groups: list[int], columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    every = source.schema_arrow.names == columns
    batches = source.iter_batches(
        rows, row_groups=groups, columns=None if every else columns, use_threads=False
    )
    return batches if every else (batch.select(columns) for batch in batches)


def check_columns(
    schema: pa.Schema, columns: tuple[str, ...] | None, elsewhere: Container[str]
) -> None:
    """Check that a file with *schema* has *columns*, but for those *elsewhere*, each once.

    Raises:
        ShardFailedError: It has not.
    """
    have = schema.names
    missing = [name for name in columns or () if name not in have and name not in elsewhere]
    if missing:
        raise ShardFailedError(
            f"no column {missing[0]!r} in the file; it has {', '.join(have)}: correct source.columns; "
            f"{MEND_OR_MOVE}"
        )
    read = [field for field in schema if columns is None or field.name in columns]
    twice = _name_that_stands_twice(read)
    if twice:
        raise ShardFailedError(
            f"two columns have the name {twice!r}, and a row keeps one value a name; rename one, "
            "or leave them out with source.columns"
        )


def _name_that_stands_twice(fields: Iterable[pa.Field], inside: str = "") -> str | None:
    names: set[str] = set()
    for field in fields:
        name: str = inside + field.name
        if name in names:
            return name
        names.add(name)
        inner = [field.type.field(i) for i in range(field.type.num_fields)]
        if twice := _name_that_stands_twice(inner, f"{name}."):
            return twice
    return None
