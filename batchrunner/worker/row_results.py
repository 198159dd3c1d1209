"""What a capability of mode `row` returns for a row, as a list of rows of our own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

from batchrunner.formats.chunk import Row


def is_async(capability: Any) -> bool:
    """Return whether a call of *capability* gives something to await or to iterate over asynchronously."""
    call = capability if inspect.isroutine(capability) else type(capability).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def fanned_out(result: Any) -> list[Row]:
    """Return *result*, the answer for one row, as a list of rows: none, one or many. They are copies, as `own_answer`.

    Raises:
        TypeError: It is no row, and no rows.
    """
    if isinstance(result, dict):
        return [own_answer(result)]
    if result is None:
        return []
    if isinstance(result, list | tuple | Iterator):
        return list(map(own_answer, result))
    raise TypeError(
        f"the capability returned {type(result).__name__} for a row; it must return a dict, a list "
        "of dicts, or None"
    )


def own_answer(row: Any) -> Any:
    """Return a shallow copy of *row* if it is a dict: a capability may fill one dict again and again."""
    if type(row) is dict:
        return row.copy()
    return copy.copy(row) if isinstance(row, dict) else row
