"""Reads JSON lines as a table by columns, or leaves them to be read by rows, with more care.

The table is the one that `shapes.tables_of` makes of the rows: if the lines are all laid out alike
(`json_layout`), then each value is proven by itself. Strings have no escapes, or orjson decodes them.
Integers are written again as they stood. Other numbers, booleans and null are orjson's, if all of a
column are of one kind.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.json_layout import NULL_TEXT, Layout, Span, layout_of
from batchrunner.formats.json_rows import may_hold_long_integer
from batchrunner.formats.json_texts import is_text
from batchrunner.formats.line_tables import LineTable, read_only

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def read_table(data: bytes) -> LineTable | None:
    """Return the rows of *data*, whole lines, as a table; None if they have to be read by rows."""
    if not data.endswith(b"\n"):
        data += b"\n"
    layout = layout_of(data)
    if layout is None or not is_text(data):
        return None
    nulls, spans = 0, layout.spans(data, nulls=0)
    if spans is None:  # without nulls in columns of strings, which is what most blocks are
        data, nulls = layout.without_nulls(data)
        spans = layout.spans(data, nulls=nulls) if nulls else None
    return None if spans is None else _line_table(data, layout, spans, nulls=nulls)


def _line_table(data: bytes, layout: Layout, spans: list[Span], *, nulls: int) -> LineTable | None:
    has_escapes = b"\\" in data
    columns, unproven = [], {}
    for number, span in enumerate(spans):
        texts = _texts(data, span)
        if layout.strings[number]:
            column = _strings(texts, has_escapes=has_escapes, nulls=nulls)
        elif (column := _integers(texts)) is None:
            column = _of_one_kind(_joined(texts, ","), len(texts))
            unproven[number] = texts
        if column is None:
            return None
        columns.append(read_only(column))
    return LineTable(
        pa.table(columns, names=list(layout.keys)),
        data,
        ends=spans[-1][1] + len(layout.constants[-1]),
        may_be_as_written=layout.is_compact and not nulls and not has_escapes,
        unproven=unproven,
    )


def _texts(data: bytes, span: Span) -> pa.StringArray:
    """Return the bytes of each value in *span*."""
    rows = len(span[0])
    # The values and what stands between them, of which every second one is taken.
    ends = np.empty(2 * rows + 1, np.int32)
    ends[0:-1:2], ends[1::2], ends[-1] = span[0], span[1], span[1][-1]
    pieces = pa.StringArray.from_buffers(2 * rows, pa.py_buffer(ends), pa.py_buffer(data))
    return pieces.take(pa.array(np.arange(0, 2 * rows, 2, dtype=np.int32)))


def _strings(texts: pa.StringArray, *, has_escapes: bool, nulls: int) -> pa.Array | None:
    is_null = pc.equal(texts, NULL_TEXT) if nulls else None
    if is_null is not None:
        texts = pc.if_else(is_null, "", texts)
    if has_escapes and b"\\" in (joined := _joined(texts, '","')):
        try:
            texts = pa.array(orjson.loads(b'["%b"]' % joined), pa.string())
        except orjson.JSONDecodeError:
            return None
    if is_null is None:
        return texts
    texts = pc.if_else(is_null, None, texts)
    return pa.nulls(len(texts)) if texts.null_count == len(texts) else texts


def _integers(texts: pa.StringArray) -> pa.Array | None:
    try:
        integers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return integers if integers.cast(pa.string()).equals(texts) else None


def _of_one_kind(joined: bytes, rows: int) -> pa.Array | None:
    try:
        values = orjson.loads(b"[%b]" % joined)
    except orjson.JSONDecodeError:
        return None
    kinds = set(map(type, values)) - {NoneType}
    if len(values) != rows or len(kinds) > 1 or not kinds <= _TYPES.keys():
        return None
    return _array(values, *kinds, joined=joined) if kinds else pa.nulls(rows)


def _array(values: list[Any], kind: type, *, joined: bytes) -> pa.Array | None:
    if kind is float and may_hold_long_integer(joined):  # orjson makes a float of it
        return None
    try:
        array = pa.array(values, _TYPES[kind])
    except OverflowError:
        return None
    is_finite = kind is not float or pc.all(pc.is_finite(array)).as_py() is not False
    return array if is_finite else None


def _joined(texts: pa.StringArray, separator: str) -> bytes:
    whole = pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts)
    return pc.binary_join(whole, separator)[0].as_buffer().to_pybytes()  # type: ignore[no-any-return]
