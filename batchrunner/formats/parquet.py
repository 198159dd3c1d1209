"""Parquet as a source and as a sink."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row
from batchrunner.formats.columns import conform, table_to_rows, unify
from batchrunner.formats.int96 import UNIT, InStep, inexact_rows, int96_columns
from batchrunner.formats.unsound import shown, unsound_rows, with_own_words
from batchrunner.shard import Shard, Slicing

Faults = dict[int, str]
"""What is wrong with rows, by their numbers."""

READ_ROWS = 16_384
"""Rows decoded at a time: bounds memory inside a row group."""

ROW_GROUP_BYTES = 64 << 20
"""Size in memory at which rows become a row group of the part."""


@dataclass(frozen=True, slots=True)
class TableChunk:
    """Some rows of a Parquet file.

    Attributes:
        content: The rows.
        numbers: Of the rows, in their file.
        bad: The rows between them that hold a value which is none of its column's type.
    """

    content: pa.Table
    numbers: Sequence[int]
    bad: tuple[BadRow, ...] = ()

    @property
    def nbytes(self) -> int:
        return int(self.content.nbytes)

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        return table_to_rows(self.content.slice(start, stop - start))

    reread = rows

    def table(self, start: int, stop: int) -> pa.Table:
        return self.content.slice(start, stop - start)

    def positions(self) -> Sequence[int]:
        return self.numbers

    def locate(self, index: int) -> Position:
        return _position(self.content, index, self.numbers[index])


def _position(table: pa.Table, index: int, number: int) -> Position:
    return Position("row", number, shown(table.slice(index, 1))[:MAX_RAW_BYTES])


def read_parquet(
    file: BinaryIO, shard: Shard, *, columns: tuple[str, ...] | None
) -> Iterator[TableChunk]:
    """Yield the rows of *shard*, in file order, decoding a few thousand at a time.

    Raises:
        ShardFailedError: The file is no Parquet, or lacks one of *columns*; a page is not what its
            checksum says; two columns have one name.
    """
    try:
        source = _Source(file, columns)
        groups, first, skip, take = _extent(source.metadata, shard)
        for table, faults in _cut(source.read(groups), skip=skip, take=take):
            yield _chunk(table, faults, first)
            first += table.num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{shard.uri} cannot be read as Parquet: {error}") from error


def _chunk(table: pa.Table, faults: Faults, first: int) -> TableChunk:
    if not faults:
        return TableChunk(with_own_words(table), range(first, first + table.num_rows))
    bad = [BadRow(_position(table, i, first + i), why) for i, why in sorted(faults.items())]
    good = [i for i in range(table.num_rows) if i not in faults]
    kept = with_own_words(table.take(pa.array(good, pa.int64())))
    return TableChunk(kept, [first + i for i in good], tuple(bad))


class _Source:
    """Some columns of a file, by their own names: Arrow takes `a.b` for a part of `a`, too."""

    def __init__(self, file: BinaryIO, columns: tuple[str, ...] | None) -> None:
        self._file = pa.PythonFile(file, mode="r")  # one for all readers: it holds their lock
        main = self._opened(UNIT)
        self.metadata = main.metadata
        have = main.schema_arrow.names
        _check_columns(main.schema_arrow, columns)
        self._columns = [name for name in have if columns is None or name in columns]
        self._main = main
        instants = [name for name in int96_columns(main) if name in self._columns]
        units = ("ns", "s") if instants else ()
        self._others = [(self._opened(unit), instants) for unit in units]

    def _opened(self, unit: str) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._file, coerce_int96_timestamp_unit=unit, page_checksum_verification=True
        )

    def read(self, groups: list[int]) -> Iterator[tuple[pa.Table, Faults]]:
        """Yield the rows of row groups, and what is wrong with which of them."""
        others = [InStep(_batches(source, groups, names)) for source, names in self._others]
        for batch in _batches(self._main, groups, self._columns):
            table = pa.Table.from_batches([batch])
            faults = unsound_rows(table)
            if others:
                faults |= inexact_rows(table, *(one.next(table.num_rows) for one in others))
            yield table, faults


def _batches(
    source: pq.ParquetFile, groups: list[int], columns: list[str]
) -> Iterator[pa.RecordBatch]:
    every = source.schema_arrow.names == columns
    batches = source.iter_batches(
        READ_ROWS, row_groups=groups, columns=None if every else columns, use_threads=False
    )
    return batches if every else (batch.select(columns) for batch in batches)


def _check_columns(schema: pa.Schema, columns: tuple[str, ...] | None) -> None:
    have = schema.names
    missing = [name for name in columns or () if name not in have]
    if missing:
        raise ShardFailedError(f"no column {missing[0]!r} in the file; it has {', '.join(have)}")
    read = [field for field in schema if columns is None or field.name in columns]
    twice = _name_that_stands_twice(read)
    if twice:
        raise ShardFailedError(
            f"two columns have the name {twice!r}, and a row keeps one value a name; rename one, "
            "or leave them out with source.columns"
        )


def _name_that_stands_twice(fields: Iterable[pa.Field], inside: str = "") -> str | None:
    seen: set[str] = set()
    for field in fields:
        name: str = inside + field.name
        if name in seen:
            return name
        seen.add(name)
        inner = [field.type.field(i) for i in range(field.type.num_fields)]
        if twice := _name_that_stands_twice(inner, f"{name}."):
            return twice
    return None


def _extent(metadata: pq.FileMetaData, shard: Shard) -> tuple[list[int], int, int, int]:
    """Return the row groups to read, the number of the first row, and how many to skip and take."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if shard.slicing is Slicing.FILE:
        return list(range(len(sizes))), 0, 0, sum(sizes)
    if shard.slicing is Slicing.ROW_GROUPS:
        groups = range(shard.start, shard.stop)
        first = sum(sizes[: shard.start])
        return list(groups), first, 0, sum(sizes[shard.start : shard.stop])
    ends = [sum(sizes[: group + 1]) for group in range(len(sizes))]
    groups_in = [
        group
        for group, end in enumerate(ends)
        if end > shard.start and end - sizes[group] < shard.stop
    ]
    before = ends[groups_in[0]] - sizes[groups_in[0]] if groups_in else 0
    return groups_in, shard.start, shard.start - before, shard.stop - shard.start


def _cut(
    pieces: Iterator[tuple[pa.Table, Faults]], *, skip: int, take: int
) -> Iterator[tuple[pa.Table, Faults]]:
    for table, faults in pieces:
        rows = table.slice(skip, take)
        inside = range(skip, skip + rows.num_rows)
        skip, take = max(skip - table.num_rows, 0), take - rows.num_rows
        if rows.num_rows:
            yield rows, {i - inside.start: why for i, why in faults.items() if i in inside}


class ParquetPart:
    """Writes one part. The schema is fixed when the first row group is written, or before."""

    def __init__(
        self, file: io.RawIOBase, *, compression: str, fix_schema: Callable[[pa.Schema], pa.Schema]
    ) -> None:
        """Write to *file*.

        Args:
            file: Where to. Written front to back.
            compression: snappy, zstd, gzip or none.
            fix_schema: Given the schema of the first rows, returns the one to write.
        """
        self._file, self._compression, self._fix_schema = file, compression, fix_schema
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            SchemaError: They do not fit those before, or the schema of the sink.
        """
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write what is held, and the footer."""
        if self._held or self._writer is None:
            self._write_group()
        if self._writer:
            self._writer.close()

    def _write_group(self) -> None:
        table = unify(self._held)
        self._held, self._held_bytes = [], 0
        if self._writer is None:
            schema = self._fix_schema(table.schema)
            self._writer = pq.ParquetWriter(self._file, schema, compression=self._compression)
        self._writer.write_table(conform(table, self._writer.schema))


def count_rows(file: BinaryIO) -> int:
    """Return what the footer says, after checking that there is one."""
    return int(pq.read_metadata(file).num_rows)
