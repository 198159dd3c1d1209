"""Converts values to canonical text: equal in every process, and different for other values."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import fractions
import functools
import hashlib
import json
import pathlib
import random
import re
import sys
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring
from typing import Any

_PLAIN = (bool, int, float, str, type(None))
_BY_REPR = (
    complex,
    range,
    slice,
    type(...),
    type(NotImplemented),
    decimal.Decimal,
    fractions.Fraction,
    uuid.UUID,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    dt.timezone,
    types.GenericAlias,
    types.UnionType,
)
_BYTES = (bytes, bytearray, memoryview, array.array)
_LISTS = (list, tuple, collections.deque)
_SETS = (set, frozenset)
_MAPPINGS = (dict, collections.defaultdict, collections.Counter, types.MappingProxyType)
_MOST = 100_000
_MOST_DEPTH = 60
_SHOWN_BYTES = 32
_COPIED = 1 << 20


class OpaqueValueError(Exception):
    """The value cannot be hashed: the fingerprint can hold its type only."""


Inner = Callable[[Any], str]
"""Returns the text of a value that is inside another value."""


class ValueLimit:
    """Limits how many values are read, so that a huge graph of objects comes to an end."""

    def __init__(self, most: int = _MOST) -> None:
        self._left = most

    def count(self, *, depth: int = 0) -> None:
        """Count one value, which is nested *depth* values deep.

        Raises:
            OpaqueValueError: There were too many, or it is nested too deep.
        """
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH:
            raise OpaqueValueError


def is_plain(value: Any) -> bool:
    """Return whether the text of *value* is short and readable, as `3` or `"a"` is, not a hash."""
    if type(value) in _PLAIN or type(value) in _BY_REPR or _is_builtin(value):
        return True
    if isinstance(value, enum.Enum | pathlib.PurePath | re.Pattern):
        return True
    return type(value) in (*_LISTS, *_SETS) and all(type(item) in _PLAIN for item in value)


def text_of(value: Any, inner: Inner) -> str | None:
    """Return *value* as canonical text; None if this module does not handle its class.

    The order of a dict does not count, just as for keyword arguments; that of an OrderedDict does.

    Args:
        value: The value to convert.
        inner: Returns the text of a value inside *value*.

    Raises:
        OpaqueValueError: Only its type can be fingerprinted.
    """
    kind = type(value)
    if kind in _PLAIN:
        return _plain(value)
    if kind in _BY_REPR:
        return repr(value)
    if isinstance(value, random.Random):
        raise OpaqueValueError  # its state differs in every process
    for text_of_kind in (_text_of_bytes, _text_of_container, _text_of_leaf, _text_of_array):
        text = text_of_kind(value, inner)
        if text is not None:
            return text
    return None


def digest(data: Any) -> str:
    """Return a hash of *data*: bytes, or a text."""
    if isinstance(data, str):
        data = data.encode(errors="surrogatepass")
    return hashlib.sha256(data).hexdigest()[:32]


def name_of(kind: Any) -> str:
    """Return the full name of a class or function."""
    name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", "?")
    return f"{getattr(kind, '__module__', None) or 'builtins'}.{name}"


def _text_of_bytes(value: Any, _: Inner) -> str | None:
    if type(value) not in _BYTES:
        return None
    if type(value) is bytes and len(value) <= _SHOWN_BYTES:
        return repr(value)
    shape = value.typecode if isinstance(value, array.array) else ""
    return f"{name_of(type(value))}{shape}[{len(value)}] {digest(bytes(value))}"


def _text_of_container(value: Any, inner: Inner) -> str | None:
    kind = type(value)
    if kind is collections.OrderedDict:
        return f"OrderedDict{_joined('[]', (_pair(pair, inner) for pair in value.items()))}"
    if kind in _MAPPINGS:
        return _mapping(value, inner)
    if kind in _SETS:
        # Sorted, since the order differs by process.
        return f"{kind.__name__}{_joined('{}', sorted(_item(item, inner) for item in value))}"
    if kind in _LISTS:
        name = "deque" if kind is collections.deque else ""
        return name + _joined(
            "()" if kind is tuple else "[]", (_item(item, inner) for item in value)
        )
    return None


def _mapping(value: Mapping[Any, Any], inner: Inner) -> str:
    text = _joined("{}", sorted(_pair(pair, inner) for pair in value.items()))
    if isinstance(value, collections.defaultdict):
        return f"defaultdict({inner(value.default_factory)}, {text})"
    return text if type(value) is dict else f"{type(value).__name__}{text}"


def _pair(pair: tuple[Any, Any], inner: Inner) -> str:
    return f"{_item(pair[0], inner)}: {_item(pair[1], inner)}"


def _item(value: Any, inner: Inner) -> str:
    """Return the text of *value*. Plain values don't count for the limit: a vocabulary has many."""
    return _plain(value) if type(value) in _PLAIN else inner(value)


def _plain(value: Any) -> str:
    if type(value) is str:
        return encode_basestring(value)
    return repr(value) if type(value) is not bool and value is not None else json.dumps(value)


def _joined(brackets: str, texts: Iterable[str]) -> str:
    return f"{brackets[0]}{', '.join(texts)}{brackets[1]}"


def _text_of_leaf(value: Any, inner: Inner) -> str | None:
    if isinstance(value, enum.Enum):
        return f"{name_of(type(value))}.{value.name} = {inner(value.value)}"
    if isinstance(value, pathlib.PurePath):
        return encode_basestring(str(value))
    if isinstance(value, re.Pattern):
        return f"re.compile({value.pattern!r}, {value.flags})"
    return _text_of_callable(value, inner)


def _is_builtin(value: Any) -> bool:
    """Return whether *value* is a function written in C and not a bound method."""
    return isinstance(value, types.BuiltinFunctionType) and isinstance(
        value.__self__, types.ModuleType
    )


def _text_of_callable(value: Any, inner: Inner) -> str | None:
    if _is_builtin(value):
        return name_of(value)
    if isinstance(value, functools.partial):
        return f"partial{_joined('()', map(inner, (value.func, value.args, value.keywords)))}"
    return None


def _text_of_array(value: Any, inner: Inner) -> str | None:
    module = str(type(value).__module__).partition(".")[0]
    if module == "torch" and hasattr(value, "detach"):
        return _text_of_tensor(value)
    numpy = sys.modules.get("numpy")
    if numpy is None or module != "numpy":
        return None
    if type(value).__module__.startswith("numpy.random"):
        raise OpaqueValueError  # its state differs in every process
    if isinstance(value, numpy.dtype | numpy.ufunc):
        return repr(value)
    if not isinstance(value, numpy.generic) and type(value) not in (numpy.ndarray, numpy.memmap):
        return None
    if value.dtype.hasobject:
        return f"numpy.object{value.shape}{inner(value.tolist())}"
    kind = "array" if value.shape else "scalar"
    data = numpy.ascontiguousarray(value).reshape(-1)
    # A view, so that a model's weights are not copied; copies of small arrays cost little.
    raw = data.view("u1") if data.nbytes > _COPIED else data.tobytes()
    return f"numpy.{kind} {value.dtype.descr}{value.shape} {digest(raw)}"


def _text_of_tensor(value: Any) -> str:
    try:
        flat = value.detach().cpu().contiguous().reshape(-1)
        data = flat.view(sys.modules["torch"].uint8).numpy()  # numpy has no bfloat16
    except (RuntimeError, TypeError) as error:  # it is quantized, or has no data yet
        raise OpaqueValueError from error
    return f"{value.dtype} {tuple(value.shape)} {digest(data)}"
