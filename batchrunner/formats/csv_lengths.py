"""Keeps parts in CSV to records that a reader takes: a longer one could be written, and not read again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.csv_records import RecordBlock
from batchrunner.formats.lines import MAX_LINE_BYTES
from batchrunner.formats.schema_error import SchemaError

MOST_BYTES = MAX_LINE_BYTES - (64 << 10)
"""The longest record that is written; later rows may add as many columns as there are bytes left."""

_NO_TEXT_BYTES = 80
"""More than a number or a time has: a decimal has up to 76 digits, a sign and a point."""
Measure = Callable[[pa.Array], pa.Array]
_ELSE = "make its texts shorter, or use a Parquet or JSON lines sink"


def check_lengths(table: pa.Table) -> None:
    """Check that the record of each row of *table* is short enough to be read again.

    Raises:
        SchemaError: One is not.
    """
    columns = [column for column in table.columns if _is_text(column.type)]
    others = (table.num_columns - len(columns)) * _NO_TEXT_BYTES + len(columns) * len('"",')
    # All rows together seldom have that much, even if each character were a quote.
    if not columns or 2 * table.nbytes + others <= MOST_BYTES:
        return
    if 2 * _most(columns, pc.binary_length) + others <= MOST_BYTES:
        return
    most = _most(columns, _quoted_length) + others  # slow: it looks for quotes
    if most > MOST_BYTES:
        raise SchemaError(_too_long(most))


def check_lengthened(block: RecordBlock, *, by: int) -> None:
    """Check that the records of *block* are all there, and can be read again if each grows *by* bytes.

    Raises:
        SchemaError: One cannot, such as that of an overlong block, which has only its first bytes.
    """
    length = block.overlong or int((block.ends - block.starts).max()) + by
    if length > MAX_LINE_BYTES:
        raise SchemaError(_too_long(length))


def _too_long(length: int) -> str:
    return (
        f"the row has about {length:,} bytes as CSV, where at most {MOST_BYTES:,} can be read again: "
        f"{_ELSE}"
    )


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    if t.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _most(columns: Sequence[pa.ChunkedArray], measure: Measure) -> int:
    """Return the most that the texts of a row measure together."""
    lengths = [
        pa.chunked_array([_measured(chunk, measure) for chunk in column.chunks], pa.int64())
        for column in columns
    ]
    most: int | None = pc.max(reduce(pc.add, (found.fill_null(0) for found in lengths))).as_py()
    return most or 0


def _measured(array: pa.Array, measure: Measure) -> pa.Array:
    if pa.types.is_dictionary(array.type):  # a long text that many rows share is not made for each
        return _measured(array.dictionary, measure).take(array.indices)
    return measure(array.cast(pa.large_string()))


def _quoted_length(texts: pa.Array) -> pa.Array:
    return pc.add(pc.binary_length(texts), pc.count_substring(texts, '"'))
