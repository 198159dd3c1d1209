"""What an object of a kind that is not known is made of: what pickle would take of it."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from types import BuiltinFunctionType
from typing import Any

from batchrunner.capability.values import UnseenError, digest, is_plain

SPREAD = (dict, list, tuple)
_MOST_SPREAD = 256
_MOST_SHOWN = 100
_NOT_ASKED = {"ray", "os"}
"""To pickle a reference of Ray's has an effect; `os.environ` is this machine's."""


def reduced(value: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return what pickle would make *value* of: by what, of what arguments, state, items and pairs.

    Raises:
        UnseenError: It cannot be pickled, such as a lock, or a file that is open.
    """
    if str(type(value).__module__).partition(".")[0] in _NOT_ASKED:
        raise UnseenError
    try:
        told = value.__reduce_ex__(4)
        if isinstance(told, str):  # the name of a global
            return type(value), told, None, None, None
        made, arguments, state, items, pairs = (*told, None, None, None)[:5]
        if made is copyreg.__newobj__:  # type: ignore[attr-defined]  # pickle's own
            arguments = arguments[1:]  # without the class
        return made, arguments, state, items and list(items), pairs and list(pairs)
    except Exception as error:  # it is others' code, and may raise anything
        raise UnseenError from error


def named_parts(value: Any, *, is_own: bool) -> Mapping[str, Any] | None:
    """Return the parts of *value* that are to be named one by one; None to take it whole.

    Raises:
        UnseenError: It is of a class of the user's own, and cannot be pickled.
    """
    if type(value) is dict and value and len(value) <= _MOST_SPREAD:
        return value if all(map(is_name, value)) else None
    if type(value) in SPREAD[1:] and len(value) <= _MOST_SPREAD and not is_plain(value):
        return {str(index): inner for index, inner in enumerate(value)}
    if is_plain(value) or isinstance(value, BuiltinFunctionType) or not is_own:
        return None
    return {"class": type(value), **parts_of(value)}


def parts_of(value: Any) -> dict[str, Any]:
    """Return what tells *value* from others of its class, by the names of its attributes.

    Raises:
        UnseenError: It cannot be pickled.
    """
    _, arguments, state, items, pairs = reduced(value)
    told: dict[str, Any] = {}
    for part in state if type(state) is tuple and len(state) == 2 else (state,):
        told |= part if type(part) is dict else {"(state)": part} if part is not None else {}
    extra = {"(made of)": arguments, "(items)": items, "(pairs)": pairs}
    named = {n if is_name(n) else digest(repr(n)): inner for n, inner in told.items()}
    return named | {name: inner for name, inner in extra.items() if inner}


def is_name(text: Any) -> bool:
    """Tell whether *text* can stand in a record, and in a message."""
    return type(text) is str and len(text) <= _MOST_SHOWN and text.isprintable()
