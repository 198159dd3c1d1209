"""The JSON text of each value of an Arrow array: what orjson writes, with no Python step for each value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

Piece = Any
"""A text that all rows have, as str; or one for each row, as an array."""

_FIRST_PRINTABLE = 32


class NotPlainError(Exception):
    """A column has a type, or a value, that is left to the writer of rows."""


def texts(array: pa.Array) -> list[Piece]:
    """Return the JSON of each value, in pieces to be joined; one of them at least is an array.

    Raises:
        NotPlainError: The writer of rows has to write them: they are nested values, times, or what
            JSON has no form for.
    """
    t, kind = pa.types, array.type
    if t.is_dictionary(kind):
        return texts(array.dictionary_decode())
    if t.is_string(kind) or t.is_large_string(kind):
        return _string_texts(array if t.is_string(kind) else array.cast(pa.string()))
    if t.is_null(kind) or t.is_integer(kind) or t.is_boolean(kind):
        return [_or_null(array.cast(pa.string()))]
    if t.is_float32(kind) or t.is_float64(kind):
        return [_float_texts(array.cast(pa.float64()))]
    raise NotPlainError


def joined(pieces: Sequence[Piece]) -> pa.Buffer:
    """Return the bytes of the rows that *pieces* make, one after the other."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return pc.binary_join_element_wise(*merged, "").buffers()[2]


def is_text(data: bytes) -> bool:
    """Return whether *data* is UTF-8."""
    if data.isascii():
        return True
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    return _is_valid(pa.LargeStringArray.from_buffers(1, ends, pa.py_buffer(data)))


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _or_null(array: pa.Array) -> pa.Array:
    return array.fill_null("null") if array.null_count else array


def _float_texts(array: pa.Array) -> pa.Array:
    # orjson's, as in rows: Arrow writes 1.0 as 1, and 1e16 with a plus.
    numbers = array.fill_null(0.0).to_numpy()
    if not np.isfinite(numbers).all():
        raise NotPlainError
    text = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode()
    split = pc.split_pattern(pa.array([text]), ",").values
    return pc.if_else(array.is_null(), "null", split) if array.null_count else split


def _string_texts(array: pa.Array) -> list[Piece]:
    if not array.null_count:
        return ['"', _escaped(array), '"']
    quoted = pc.binary_join_element_wise('"', _escaped(array), '"', "")
    return [_or_null(quoted)]


def _escaped(array: pa.Array) -> pa.Array:
    text = _bytes_of(array)
    # A capability may have made the strings of any bytes: Arrow does not look.
    if not text.isascii() and not _is_valid(array):
        raise NotPlainError
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
