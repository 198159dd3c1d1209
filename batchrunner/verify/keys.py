"""Encodes keys as bytes: the bytes are equal exactly if the keys are, by value and type.

The first byte is the type. All numbers have one type, so that 1, 1.0 and a decimal 1.00 are one key:
JSON has only one, and the source may be JSON and the sink Parquet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NULL, TRUE, FALSE = b"~", b"?true", b"?false"
_NUMBER, _TEXT, _BYTES, _NESTED, _TIME, _OTHER = b"#", b"'", b"x", b"{", b"@", b"?"
_SHOWN = 100
_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def key_of(value: object, *, times_are_text: bool = True) -> bytes:
    """Return the encoded key of a Python value.

    With *times_are_text*, encode a date as its text in JSON: for a source or sink that is JSON.
    """
    if isinstance(value, date | time | timedelta):
        text = str(value) if isinstance(value, timedelta) else value.isoformat()
        return (_TEXT if times_are_text else _TIME) + text.encode()
    # By exact type: for `isinstance`, True is an int, but as a key it is no number.
    return _KEYS.get(type(value), _rare)(value)


def _rare(value: object) -> bytes:
    if isinstance(value, dict | list | tuple):
        return _NESTED + json.dumps(_plain(value), sort_keys=True).encode()
    return _OTHER + str(value).encode()


_ALL_DIGITS = Context(prec=1000)  # the default rounds to 28 digits: two keys could become one


def _number(value: float | Decimal) -> str:
    if not math.isfinite(value):
        return str(value).lower()
    if value == int(value):  # 1, 1.0 and a decimal 1.00 are one key
        return str(int(value))
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    return f"{exact.normalize(_ALL_DIGITS):f}"


_KEYS: dict[type, Callable[[Any], bytes]] = {
    int: lambda value: b"#%d" % value,
    str: lambda value: _TEXT + value.encode("utf-8", "surrogatepass"),
    type(None): lambda _: NULL,
    bool: lambda value: TRUE if value else FALSE,
    float: lambda value: _NUMBER + _number(value).encode(),
    Decimal: lambda value: _NUMBER + _number(value).encode(),
    bytes: lambda value: _BYTES + value,
}


def _plain(value: object) -> Any:
    """Return a nested value as JSON would hold it.

    Null fields are dropped: a Parquet struct has every field, a JSON object may not.
    """
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return key_of(value).decode("utf-8", "surrogateescape")


def keys_of_column(column: pa.ChunkedArray, *, times_are_text: bool) -> pa.Array:
    """Return the encoded keys of an Arrow column: the same bytes as `key_of` returns.

    Only timestamps, unless *times_are_text*, have keys of their own, in nanoseconds.
    """
    import pyarrow as pa
    import pyarrow.types as t

    if t.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if t.is_integer(kind) or t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return _tagged(column, _NUMBER if t.is_integer(kind) else _TEXT)
    if t.is_timestamp(kind) and not times_are_text:
        return pa.array(_instants(column), pa.large_binary())
    keys = [key_of(value, times_are_text=times_are_text) for value in column.to_pylist()]
    return pa.array(keys, pa.large_binary())


def _tagged(column: pa.ChunkedArray, tag: bytes) -> pa.Array:
    """Return *tag* and the text of each value. In Arrow, as Python calls take far longer."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.large_binary()
    text = column.cast(pa.large_string()).cast(kind)
    tagged = pc.binary_join_element_wise(pa.scalar(tag, kind), text, pa.scalar(b"", kind))
    return pc.fill_null(tagged, pa.scalar(NULL, kind)).combine_chunks()


def _instants(column: pa.ChunkedArray) -> list[bytes]:
    """Return the encoded keys of timestamps in nanoseconds, which Python's datetime would cut."""
    import pyarrow as pa

    scale, zone = _UNITS[column.type.unit], b"z" if column.type.tz else b""
    numbers = column.cast(pa.int64()).to_pylist()
    return [NULL if n is None else _TIME + b"%d ns%b" % (n * scale, zone) for n in numbers]


_SHOW: dict[bytes, Callable[[bytes], str]] = {
    _TEXT: lambda text: json.dumps(text.decode("utf-8", "surrogatepass"), ensure_ascii=False),
    _BYTES: lambda data: data.hex(),
    _NESTED: lambda text: _unplain(json.loads(text)),
}


def shown(keys: Sequence[bytes], names: Sequence[str]) -> str:
    """Return the key of a row as text for the user, such as `id 7, lang "en"`."""
    return ", ".join(f"{name} {_shown(key)}" for name, key in zip(names, keys, strict=True))


def _shown(key: bytes) -> str:
    show, rest = _SHOW.get(key[:1]), key[1:]
    text = show(rest) if show else rest.decode("utf-8", "replace")
    text = "null" if key == NULL else text
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _unplain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_unplain(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_unplain, value)) + "]"
    return _shown(value.encode("utf-8", "surrogateescape"))
