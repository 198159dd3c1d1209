"""Writes parts in CSV: a header line, then the rows; each text is in quotes, and null is empty."""

from __future__ import annotations

import io
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from batchrunner.errors import ShardFailedError
from batchrunner.formats.columns import joined
from batchrunner.formats.compression import RowPart, open_compressed
from batchrunner.formats.conform import conform
from batchrunner.formats.contract import Restart, Settle
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.csv_fields import records_of
from batchrunner.formats.csv_lengths import check_lengthened
from batchrunner.formats.csv_records import Records
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import grown

HELD_BYTES = 4 << 20
"""Size in memory at which rows are written."""

_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""The days from 1970 to the first of the year 1 and the last of 9999."""
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6}
_ELSE = "return text instead, or use a Parquet or JSON lines sink"


def check_columns(table: pa.Table) -> None:
    """Check that CSV has a text for each value of *table*, from which it can be read again.

    Raises:
        SchemaError: It has none; the message names the column.
    """
    for field, column in zip(table.schema, table.columns, strict=True):
        if not _has_text(field.type):
            raise SchemaError(f"column {field.name!r}: CSV has no text for {field.type}: {_ELSE}")
        if pa.types.is_date(field.type) or pa.types.is_timestamp(field.type):
            _check_years(column, field.name)


def _has_text(kind: pa.DataType) -> bool:
    t = pa.types
    if t.is_dictionary(kind):
        return _has_text(kind.value_type)
    tests = (t.is_null, t.is_boolean, t.is_integer, t.is_floating, t.is_decimal, t.is_date)
    times = (t.is_time, t.is_timestamp)
    texts = (t.is_string, t.is_large_string, t.is_string_view)
    return any(is_kind(kind) for is_kind in (*tests, *times, *texts))


def _check_years(column: pa.ChunkedArray, name: str) -> None:
    range_ = pc.min_max(column.cast(pa.int32() if pa.types.is_date(column.type) else pa.int64()))
    least, most = _range_of(column.type)
    if (
        range_["min"].is_valid
        and not least <= range_["min"].as_py() <= range_["max"].as_py() < most
    ):
        raise SchemaError(
            f"column {name!r}: CSV has no text for a day before the year 1 or after 9999: {_ELSE}"
        )


def _range_of(kind: pa.DataType) -> tuple[int, int]:
    """Return the least count of the unit of *kind* with a text that can be read, and the next too large."""
    if pa.types.is_date(kind):
        return _FIRST_DAY, _LAST_DAY + 1
    if kind.unit == "ns":  # from 1677 on; Arrow cannot read the first second
        return -(2**63 // 10**9) * 10**9, 2**63
    # With a zone, its clock shows the instant, which may be in another year than that of UTC.
    aside = 0 if kind.tz in {None, "UTC"} else 1
    ticks = 86_400 * _TICKS[kind.unit]
    return (_FIRST_DAY + aside) * ticks, (_LAST_DAY + 1 - aside) * ticks


class CsvPart:
    """Writes one part. A column that a later row adds is added to the rows before it, as null."""

    def __init__(
        self,
        file: io.RawIOBase,
        *,
        compression: str,
        settle: Settle,
        restart: Restart,
        delimiter: str,
    ) -> None:
        """Write to *file*; the other arguments are those of `Format.writer`."""
        self._out = RowPart(file, compression=compression)
        self._compression, self._delimiter = compression, delimiter
        self._settle, self._restart = settle, restart
        self._held: list[pa.Table] = []
        self._held_bytes = self._rows = 0
        self._own: pa.Schema | None = None
        self._schema: pa.Schema | None = None

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            SchemaError: They do not fit the rows before them, or the schema of the sink.
            ShardFailedError: The rows before them cannot be read back, to add a column to them.
        """
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= HELD_BYTES:
            self._write()

    def close(self) -> None:
        """Write the buffered rows; a part without rows has a header, if its columns are known."""
        if self._held or self._schema is None:
            self._write()
        self._out.close()

    def _write(self) -> None:
        schema = self._settled()
        if tables := [_fitted(table, schema) for table in self._held]:
            self._out.append(self._text_of(joined(tables)))
            self._rows += sum(table.num_rows for table in tables)
        self._held, self._held_bytes = [], 0

    def _settled(self) -> pa.Schema:
        """Return a schema that fits the buffered rows, once the file has a header of its columns."""
        before, own = self._schema, self._own or pa.schema([])
        grown_own = reduce(grown, (table.schema for table in self._held), own)
        if before is not None and grown_own is self._own:
            return before
        self._own = grown_own
        schema = self._schema = self._settle(grown_own)
        if self._held and not len(schema):
            raise SchemaError("rows without any column, which CSV cannot keep; return a column")
        if before is None:
            self._out.append(self._header_of(schema.names))
        elif before.names != schema.names:
            self._write_again(schema.names[len(before) :])
        return schema

    def _header_of(self, names: list[str]) -> bytes:
        return self._text_of(pa.table([[name] for name in names], names=names)) if names else b""

    def _text_of(self, table: pa.Table) -> bytes:
        out = pa.BufferOutputStream()
        # "needed" puts each text in quotes, so that an empty one differs from null.
        options = pyarrow.csv.WriteOptions(
            include_header=False, delimiter=self._delimiter, quoting_style="needed"
        )
        pyarrow.csv.write_csv(_as_texts(table), out, options)
        text: bytes = out.getvalue().to_pybytes()
        return text

    def _write_again(self, names: list[str]) -> None:
        """Start a new file with the columns *names* behind those of the rows so far.

        Raises:
            SchemaError: With them, a record is too long to be read.
            ShardFailedError: The file so far has another number of rows than were written.
        """
        self._out.close()
        written, file = self._restart()
        self._out = RowPart(file, compression=self._compression)
        written.seek(0)
        stream = open_compressed(
            written, None if self._compression == "none" else self._compression
        )
        delimiter = self._delimiter.encode()
        tail, rows = delimiter + self._header_of(names), -1  # the header is no row
        for block in Records(Dialect(self._delimiter)).blocks(stream):
            check_lengthened(block, by=len(tail) - 1)
            rows += len(block.ends)
            records = []
            for record in records_of(block):
                records += [record.removesuffix(b"\n"), tail]
                tail = delimiter * len(names) + b"\n"
            self._out.append(b"".join(records))
        if rows != self._rows:
            raise ShardFailedError(
                f"{rows:,} rows were read back of {self._rows:,} that were written to the part, to add "
                f"the column {names[0]!r}: run it again"
            )


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return *table* in *schema*, without columns of type null that *schema* does not have."""
    names = [f.name for f in table.schema if f.name in schema.names or not pa.types.is_null(f.type)]
    return conform(
        table.select(names) if len(names) < table.num_columns else table, schema, lenient=False
    )


def _as_texts(table: pa.Table) -> pa.Table:
    """Return *table* with the types that Arrow writes."""
    for index, field in enumerate(table.schema):
        column: Any = table.column(index)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        if pa.types.is_string_view(column.type):
            column = column.cast(pa.string())
        if column.type != field.type:
            table = table.set_column(index, field.name, column)
    return table
