"""Reads the rows of Arrow IPC files and streams, a record batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.arrow_batches import opened
from batchrunner.formats.arrow_damage import check_layout
from batchrunner.formats.arrow_hash import PlacedReads
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.parquet_reader import Faults, TableChunk, check_columns, chunk_of_table
from batchrunner.formats.partitions import Partition, contradicting_rows, wanted
from batchrunner.formats.unsound import unsound_rows
from batchrunner.shard import Slice, Slicing


def read_arrow(
    file: BinaryIO,
    piece: Slice,
    *,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[TableChunk]:
    """Yield the rows of *piece*, in file order, a record batch at a time.

    Args:
        file: The whole file.
        piece: The slice of the file to read.
        columns: The columns to read, or None for all. Of a file, no others are read.
        partition: Columns that the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The file is no Arrow, is damaged or cut short, lacks one of *columns*, or has
            two with the same name.
    """
    partition = wanted(partition, columns)
    try:
        # A hash covers what is read, so it has to be the same at each reading.
        source = opened(file, piece, remember=not isinstance(file, PlacedReads))
        check_columns(source.schema, columns, {name for name, _ in partition})
        _check_types(source.schema, columns)
        for first, batch in source.batches(piece, columns=columns):
            table = pa.Table.from_batches([batch])
            faults = _faults(table, first, partition)
            if piece.slicing is Slicing.ROWS:
                table, faults, first = _clipped(table, faults, first, piece)  # noqa: PLW2901
            if table.num_rows:
                yield chunk_of_table(table, faults, first, partition)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{piece.uri} cannot be read as Arrow: {error}; {MEND}") from error


def _check_types(schema: pa.Schema, columns: tuple[str, ...] | None) -> None:
    for field in schema:
        if (columns is None or field.name in columns) and _is_unknown(field.type):
            raise ValueError(
                f"column {field.name!r} is of {field.type}, which pyarrow has no values for; leave it out "
                "with source.columns, or cast it to month_day_nano_interval"
            )


def _is_unknown(kind: pa.DataType) -> bool:
    """Return whether Python has no class for *kind*, at any depth; names that are no text raise."""
    if kind.id in (pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME):
        return True
    if pa.types.is_dictionary(kind):
        return _is_unknown(kind.value_type)
    inner = {field.name: field.type for field in map(kind.field, range(kind.num_fields))}
    return any(map(_is_unknown, inner.values()))


def _faults(table: pa.Table, first: int, partition: Partition) -> Faults:
    check_layout(table, first=first)  # before anything looks into the values: it might crash
    return unsound_rows(table) | contradicting_rows(table, partition)


def _clipped(
    table: pa.Table, faults: Faults, first: int, piece: Slice
) -> tuple[pa.Table, Faults, int]:
    """Return the rows of *table* that are rows of *piece*, with their faults and first number."""
    begin = max(piece.start - first, 0)
    rows = table.slice(begin, max(piece.stop - first - begin, 0))
    inside = range(begin, begin + rows.num_rows)
    return rows, {i - begin: why for i, why in faults.items() if i in inside}, first + begin
