"""Writes tables as JSON lines by columns: the same bytes as rows give, with no Python step a row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.json_tables import is_text

Piece = Any
"""A text that all rows have, as str; or one for each row, as an array."""

_FIRST_PRINTABLE = 32


class _NotPlainError(Exception):
    """A column has a type, or a value, that is left to the writer of rows."""


def write_table(table: pa.Table) -> bytes | None:
    """Return the rows of *table* as lines; None if they have to be written by rows.

    That is so for nested values, times and whatever JSON has no form for: the writer of rows says
    which row, and why.
    """
    names = table.column_names
    if not names or len(set(names)) < len(names):
        return None
    if not table.num_rows:
        return b""
    try:
        lines = _joined(list(_pieces(table)))
    except (_NotPlainError, pa.ArrowException):
        return None
    return lines if is_text(lines) else None


def _pieces(table: pa.Table) -> Iterator[Piece]:
    before = "{"
    for name, column in zip(table.column_names, table.columns, strict=True):
        yield f"{before}{orjson.dumps(name).decode()}:"
        yield from _texts(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())
        before = ","
    yield "}\n"


def _joined(pieces: list[Piece]) -> bytes:
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    lines = pc.binary_join_element_wise(*merged, "")
    return lines.buffers()[2].to_pybytes()  # type: ignore[no-any-return]  # of pyarrow's


def _texts(array: pa.Array) -> list[Piece]:
    """Return the JSON of each value, in pieces to be joined.

    Raises:
        _NotPlainError: The writer of rows has to write them.
    """
    t, kind = pa.types, array.type
    if t.is_dictionary(kind):
        return _texts(array.dictionary_decode())
    if t.is_string(kind) or t.is_large_string(kind):
        return _string_texts(array if t.is_string(kind) else array.cast(pa.string()))
    if t.is_null(kind) or t.is_integer(kind) or t.is_boolean(kind):
        return [_or_null(array.cast(pa.string()))]
    if t.is_float32(kind) or t.is_float64(kind):
        return [_float_texts(array.cast(pa.float64()))]
    raise _NotPlainError


def _or_null(texts: pa.Array) -> pa.Array:
    return texts.fill_null("null") if texts.null_count else texts


def _float_texts(array: pa.Array) -> pa.Array:
    # orjson's, as in rows: Arrow writes 1.0 as 1, and 1e16 with a plus.
    numbers = array.fill_null(0.0).to_numpy()
    if not np.isfinite(numbers).all():
        raise _NotPlainError
    text = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    texts = pc.split_pattern(pa.array([text]), ",").values
    return pc.if_else(array.is_null(), "null", texts) if array.null_count else texts


def _string_texts(array: pa.Array) -> list[Piece]:
    if not array.null_count:
        return ['"', _escaped(array), '"']
    quoted = pc.binary_join_element_wise('"', _escaped(array), '"', "")
    return [_or_null(quoted)]


def _escaped(array: pa.Array) -> pa.Array:
    text = _bytes_of(array)
    signs = {sign for sign in '\\"' if sign.encode() in text}
    if text and (low := np.frombuffer(text, np.uint8)).min() < _FIRST_PRINTABLE:
        signs |= set(map(chr, np.unique(low[low < _FIRST_PRINTABLE]).tolist()))
    for sign in sorted(signs, reverse=True):  # the backslash first: the others add some
        array = pc.replace_substring(array, sign, orjson.dumps(sign)[1:-1].decode())
    return array


def _bytes_of(array: pa.Array) -> bytes:
    """Return the bytes of all strings of *array*, one after the other."""
    _, ends, text = array.buffers()
    if text is None:
        return b""
    bounds = np.frombuffer(ends, np.int32)[array.offset : array.offset + len(array) + 1]
    return text[int(bounds[0]) : int(bounds[-1])].to_pybytes()  # type: ignore[no-any-return]
