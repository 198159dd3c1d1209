"""JSON lines to rows and back, by the block, altering nothing.

orjson does the work, a block at a time. It alters or refuses four things (in brackets, how we notice):

* an integer beyond 64 bits becomes a float (it has at least 19 digits in a row),
* the earlier of two equal keys is lost (writing the rows again gives fewer quotation marks),
* NaN and infinity are written as null (there is a null),
* what JSON allows but UTF-8 does not, such as a lone surrogate, is refused (it raises).

A block that is written again exactly as it was has lost nothing. Any other block is searched for these
signs, and only a suspicious line is read again by the slow and strict parser of the standard library.

Numbers are what the standard library makes of them. Floats are IEEE doubles: digits beyond these are
not kept, so `1e-400` is 0.0. `-0` is the integer 0; `-0.0` keeps its sign.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NoReturn

import orjson

from batchrunner.formats.chunk import Row
from batchrunner.formats.json_values import OPTIONS, all_finite, plain

_SHAPE = bytes.maketrans(b"123456789", b"0" * 9)
_MANY_DIGITS = b"0" * 19
_OPTIONS = OPTIONS | orjson.OPT_APPEND_NEWLINE
_NULL = int.from_bytes(b"null", "little")
_MANY_BYTES = 1 << 12
_ESCAPED_QUOTE = b"\\u0022"  # the one escape that changes how many quotation marks are written


def parse_block(data: bytes) -> list[Row] | None:
    r"""Return the row of each line of *data*; None if a line needs `parse_line`.

    Each line ends with its newline; the last one's may be missing when the line is not empty.

    One call for all lines takes half as long as one call for each. A random number between the lines
    separates their rows in the result. If lines parse only together, or a line holds two rows, a
    separator is missing or in the wrong place.
    """
    lines = data.removesuffix(b"\n")
    mark = random.randrange(10**17, 10**18)  # noqa: S311 - no secret
    cut = b",%d," % mark
    marked = b"[%b]" % lines.replace(b"\n", cut)
    newlines = (len(marked) - len(lines) - 2) // (len(cut) - 1)
    try:
        values = orjson.loads(marked)
        again = orjson.dumps(values)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # it writes less deep than it reads
        return None
    rows = values[::2]
    if set(map(type, rows)) != {dict} or values[1::2] != [mark] * newlines:
        return None
    return rows if again == marked or not _may_have_lost(data, again=again) else None


def parse_array(data: bytes) -> list[Row] | None:
    """Return the rows of a JSON array, on any number of lines; None if an element needs `parse_line`."""
    try:
        rows = orjson.loads(data)
        again = orjson.dumps(rows)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if not isinstance(rows, list) or set(map(type, rows)) - {dict}:
        return None
    return rows if again == data or not _may_have_lost(data, again=again) else None


def _may_have_lost(data: bytes, *, again: bytes) -> bool:
    """Return whether reading *data* may have lost something; *again* is its rows, written again."""
    if b"\\" in data and _ESCAPED_QUOTE in data:
        return True
    return may_hold_long_integer(data) or again.count(b'"') != data.count(b'"')


def may_hold_long_integer(data: bytes) -> bool:
    """Return whether *data* may have an integer of 19 digits or more: orjson makes a float of it."""
    # With all digits made equal, a search for a plain string finds many in a row: a regular expression
    # takes ten times as long. After a point, they are a fraction.
    shape = data.translate(_SHAPE)
    at = shape.find(_MANY_DIGITS)
    while at >= 0:
        if shape[at - 1 : at] != b".":
            return True
        at = shape.find(_MANY_DIGITS, at + len(_MANY_DIGITS))
    return False


def parse_line(line: bytes) -> Row:
    """Return the row of one line, exactly.

    Raises:
        ValueError: It is no JSON object, or one that cannot be kept exactly; the message says why.
    """
    rows = parse_block(line)
    return rows[0] if rows else _parse_strictly(line)


def _parse_strictly(line: bytes) -> Row:
    try:
        row = json.loads(
            line.decode(),
            object_pairs_hook=unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start} of the line") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a JSON object, not {_json_type(row)}")  # noqa: TRY004 - bad data, not bad code
    return row


def unique_keys(pairs: list[tuple[str, Any]]) -> Row:
    """Return *pairs*, the members of a JSON object, as a dict.

    Raises:
        ValueError: A key stands twice.
    """
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice: rename or remove one")
    return row


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON: write null")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:40]} is too large for a double")
    return number


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def write_block(rows: Sequence[Row]) -> bytes | None:
    """Return *rows* as lines; None if a row needs `write_line`."""
    try:
        lines = b"".join(map(orjson.dumps, rows, repeat(plain), repeat(_OPTIONS)))
    except (orjson.JSONEncodeError, ValueError):
        return None
    return None if _has_null(lines) and not all_finite(rows) else lines


def _has_null(lines: bytes) -> bool:
    """Return `b"null" in lines`; for many lines, in a third of the time: four bytes are one number."""
    if len(lines) < _MANY_BYTES:
        return b"null" in lines
    import numpy as np

    size = len(lines)
    words = (np.frombuffer(lines, "<u4", (size - at) // 4, at) for at in range(4))
    return any((each == _NULL).any() for each in words)


def write_line(row: Row) -> bytes:
    """Return one row as a line, exactly.

    Raises:
        ValueError: It cannot be written as JSON; the message names the key.
    """
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a dict, not {type(row).__name__}")  # noqa: TRY004 - bad data, not bad code
    line = write_block([row])
    if line is not None:
        return line
    for key, value in row.items():
        if not isinstance(key, str):
            raise ValueError(f"the key {key!r} is no string: convert it to str")  # noqa: TRY004 - bad data, not bad code
        try:
            _check_keys(value)
            _write_strictly(value)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"the value of {key!r} is no JSON: {error}; convert it") from error
    return _write_strictly(row) + b"\n"


def _check_keys(value: object) -> None:
    """Check that all keys are strings: the standard library would convert others to strings."""
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise TypeError(f"the key {wrong!r} is no string: convert it to str")
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(inner, Iterable) and isinstance(value, dict | list | tuple):
        for one in inner:
            _check_keys(one)


def _write_strictly(value: object) -> bytes:
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain
    )
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=plain).encode()
