"""What a run in this process changed in the object that it called: a cache, a counter, a list.

Run again, it is the same capability: without this, its own work would count as a change of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

Values = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class _Worked:
    """What an object held before it was called, and after that."""

    whose: weakref.ref[Any]
    before: Values
    after: Values


_worked: dict[int, _Worked] = {}


def remember_work(capability: Any, *, before: Values, after: Values) -> None:
    """Take the difference between *before* and *after* for the work of *capability*."""
    whose = _anchor(capability)
    try:
        reference = weakref.ref(whose, partial(_forget, id(whose)))
    except TypeError:  # nothing can be remembered of it
        return
    if before != after:
        _worked[id(whose)] = _Worked(reference, before, after)


def before_work(capability: Any, values: Values) -> Values:
    """Return what *capability* held before its work, if *values* is what it held after that."""
    whose = _anchor(capability)
    known = _worked.get(id(whose))
    if known is None or known.whose() is not whose or known.after != values:
        return values
    return known.before


def _forget(number: int, _: object) -> None:
    _worked.pop(number, None)


def _anchor(capability: Any) -> Any:
    """Return what lives on: a method is made anew each time that it is looked up."""
    return capability.__self__ if isinstance(capability, MethodType) else capability
