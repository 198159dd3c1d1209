"""A Parquet file as Arrow reads it, and the rows that it would read wrongly."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import ShardFailedError
from batchrunner.formats.int96 import UNIT, InStep, inexact_rows, int96_columns
from batchrunner.formats.partition_values import contradicting_rows
from batchrunner.formats.partitions import Partition
from batchrunner.formats.unsound import unsound_rows

Faults = dict[int, str]
"""What is wrong with rows, by their numbers."""


class ParquetSource:
    """Some columns of a file, by their own names: Arrow takes `a.b` for a part of `a`, too."""

    def __init__(
        self, file: BinaryIO, columns: tuple[str, ...] | None, partition: Partition
    ) -> None:
        """Read *columns* of *file*, or all; those of *partition* may be missing.

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
        _check_columns(main.schema_arrow, columns, elsewhere)
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
        """Yield the rows of row groups, so many at a time, and what is wrong with which of them."""
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


def _check_columns(
    schema: pa.Schema, columns: tuple[str, ...] | None, elsewhere: Container[str]
) -> None:
    have = schema.names
    missing = [name for name in columns or () if name not in have and name not in elsewhere]
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
