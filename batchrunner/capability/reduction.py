"""Takes an object of an unknown class apart, in the way that `pickle` does."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import BuiltinFunctionType
from typing import Any

from batchrunner.capability.values import OpaqueValueError, digest, is_plain

SPREAD = (dict, list, tuple)
_MOST_SPREAD = 256
_MOST_SHOWN = 100
_NOT_REDUCED = {"ray", "os"}
"""Modules whose objects are opaque: pickling an object reference of Ray's pins it in the cluster,
and `os.environ` belongs to this machine."""


def reduced(value: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return what pickle would rebuild *value* from: function, arguments, state, items and pairs.

    Raises:
        OpaqueValueError: It cannot be pickled, such as a lock or an open file, or is in `_NOT_REDUCED`.
    """
    if str(type(value).__module__).partition(".")[0] in _NOT_REDUCED:
        raise OpaqueValueError
    try:
        reduction = value.__reduce_ex__(4)
        if isinstance(reduction, str):  # the name of a global
            return type(value), reduction, None, None, None
        maker, arguments, state, items, pairs = (*reduction, None, None, None)[:5]
        if maker is copyreg.__newobj__:  # type: ignore[attr-defined]  # pickle's own
            arguments = arguments[1:]  # without the class
        return maker, arguments, state, items and list(items), pairs and list(pairs)
    except (
        Exception
    ) as error:  # `__reduce_ex__` may be a library's or the user's, which may raise anything
        raise OpaqueValueError from error


def named_parts(value: Any, *, is_own: bool) -> Mapping[str, Any] | None:
    """Return the parts of *value* that are hashed one by one; None to hash it as a whole.

    An instance has such parts if its class is the user's (*is_own*).

    Raises:
        OpaqueValueError: Its class is the user's, and it cannot be pickled.
    """
    if type(value) is dict and value and len(value) <= _MOST_SPREAD:
        return value if all(map(is_name, value)) else None
    if type(value) in SPREAD[1:] and len(value) <= _MOST_SPREAD and not is_plain(value):
        return {str(index): inner for index, inner in enumerate(value)}
    if is_plain(value) or isinstance(value, BuiltinFunctionType) or not is_own:
        return None
    return {"class": type(value), **parts_of(value)}


def parts_of(value: Any) -> dict[str, Any]:
    """Return the state of the instance *value*, by the names of its attributes.

    Raises:
        OpaqueValueError: It cannot be pickled.
    """
    _, arguments, state, items, pairs = reduced(value)
    attributes: dict[str, Any] = {}
    # A pair is pickle's form for the `__dict__` and the slots.
    for part in state if type(state) is tuple and len(state) == 2 else (state,):
        attributes |= part if type(part) is dict else {"(state)": part} if part is not None else {}
    extra = {"(made of)": arguments, "(items)": items, "(pairs)": pairs}
    named = {n if is_name(n) else digest(repr(n)): inner for n, inner in attributes.items()}
    return named | {name: inner for name, inner in extra.items() if inner}


def is_name(text: Any) -> bool:
    """Return whether *text* is short and printable, so that it can be stored and shown."""
    return type(text) is str and len(text) <= _MOST_SHOWN and text.isprintable()
