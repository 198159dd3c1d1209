"""Writes Parquet parts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.formats.columns import joined
from batchrunner.formats.conform import conform
from batchrunner.formats.contract import Restart, Settle
from batchrunner.formats.parquet_types import check_writable, no_rows
from batchrunner.formats.schema_error import SchemaError, first_line
from batchrunner.formats.schemas import grown

ROW_GROUP_BYTES = 64 << 20
"""Size in memory at which rows become a row group of the part."""


class ParquetPart:
    """Writes one part, in row groups. Its schema grows with its rows."""

    def __init__(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> None:
        """Write to *file*.

        Args:
            file: The file of the part; written front to back.
            compression: snappy, zstd, gzip or none.
            settle: Called before the first rows are written, and whenever rows add to the schema.
            restart: Called when rows add to the schema that earlier rows are written with.
        """
        self._file, self._compression = file, compression
        self._settle, self._restart = settle, restart
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._own: pa.Schema | None = None
        self._words = Words()
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            SchemaError: They do not fit the rows before them, or the schema of the sink.
        """
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the buffered rows and the footer."""
        if self._held or self._writer is None:
            self._write_group()
        if self._writer:
            self._writer.close()

    def _write_group(self) -> None:
        writer = self._ready_writer()
        tables = [_fitted(table, writer.schema) for table in self._held]
        self._held, self._held_bytes = [], 0
        try:
            writer.write_table(joined(tables) if tables else no_rows(writer.schema))
        except pa.ArrowException as error:
            raise SchemaError(
                f"Parquet cannot hold the rows: {first_line(error)}; declare other types in "
                "sink.schema, or use sink.format: jsonl"
            ) from error

    def _ready_writer(self) -> pq.ParquetWriter:
        """Return a writer whose schema fits the buffered rows and the rows written before them."""
        own = self._own or pa.schema([])
        grown_own = self._words.within(
            reduce(grown, (table.schema for table in self._held), own), self._held
        )
        if self._writer is not None and grown_own is own:
            return self._writer
        self._own = grown_own
        schema = self._settle(grown_own)
        _check_writable(schema, rows=sum(table.num_rows for table in self._held))
        if self._writer is None:
            self._writer = self._new_writer(schema)
        elif not schema.equals(self._writer.schema):
            self._write_again(schema)
        return self._writer

    def _new_writer(self, schema: pa.Schema) -> pq.ParquetWriter:
        return pq.ParquetWriter(self._file, schema, compression=self._compression)

    def _write_again(self, schema: pa.Schema) -> None:
        """Start a new file with *schema* and copy the earlier rows to it: a file has one schema."""
        before: Any = self._writer
        before.close()
        written, self._file = self._restart()
        self._writer = self._new_writer(schema)
        source = pq.ParquetFile(written)
        for group in range(source.num_row_groups):
            self._writer.write_table(_fitted(source.read_row_group(group), schema))


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return *table* in *schema*, without columns of type null that *schema* does not have."""
    names = [f.name for f in table.schema if f.name in schema.names or not pa.types.is_null(f.type)]
    return conform(
        table.select(names) if len(names) < table.num_columns else table, schema, lenient=False
    )


def _check_writable(schema: pa.Schema, *, rows: int) -> None:
    if rows and not len(schema):
        raise SchemaError(
            "rows without any column, which Parquet cannot keep; use sink.format: jsonl, or declare "
            "the columns in sink.schema"
        )
    check_writable(schema, is_final=True)


class Words:
    """Counts the distinct values, or words, of the dictionary columns of one part."""

    def __init__(self) -> None:
        self._by_column: dict[str, set[object]] = {}

    def within(self, schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Schema:
        """Return *schema* with indices wide enough for all words so far, and those of *tables*."""
        narrow = [field for field in schema if _is_narrow(field.type)]
        if not narrow:
            return schema
        for table in tables:
            for field in narrow:
                if field.name in table.column_names:
                    self._add(field.name, table.column(field.name))
        for field in narrow:
            if len(self._by_column.get(field.name, ())) > _reach(field.type.index_type):
                schema = schema.set(schema.get_field_index(field.name), _widened(field))
        return schema

    def _add(self, name: str, column: pa.ChunkedArray) -> None:
        if pa.types.is_dictionary(column.type):
            words = [word for chunk in column.chunks for word in chunk.dictionary.to_pylist()]
        else:
            words = column.unique().to_pylist()
        self._by_column.setdefault(name, set()).update(words)


def _is_narrow(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and kind.index_type.bit_width < 32)


def _reach(index: pa.DataType) -> int:
    signs = 1 if pa.types.is_signed_integer(index) else 0
    return int(2 ** (index.bit_width - signs))


def _widened(field: pa.Field) -> pa.Field:
    kind = pa.dictionary(pa.int32(), field.type.value_type, ordered=field.type.ordered)
    return pa.field(field.name, kind)
