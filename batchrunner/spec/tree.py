"""The values of a text as a tree, each with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from batchrunner.spec.diagnosis import Page, Problem

MAX_CHARACTERS = 1 << 20
"""Of a text, and of its values when every alias is written out."""

MAX_DEPTH = 50
"""Levels of a text when every alias is written out."""

MAX_NODES = 20_000
"""Keys and values of a text when every alias is written out."""


class Node(NamedTuple):
    """One value of a text. A tuple, because a text has thousands and tuples are made fastest.

    Attributes:
        value: Plain Python: str, int, float, bool, None, list, or dict with str keys.
        start: Where it begins, in characters from the start of the text; *end*: one past its end.
        children: Its parts, by key or by index.
        keys: Where each key begins.
        height: Levels below this one.
        broken: A problem of this value is known, so that others are only its echo.
        from_environment: A variable went into it.
    """

    value: object
    start: int
    end: int
    children: Mapping[str | int, Node] = MappingProxyType({})
    keys: Mapping[str, int] = MappingProxyType({})
    height: int = 0
    broken: bool = False
    from_environment: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says, and what is wrong with it.

    Attributes:
        root: None when the text is empty or was given up.
        problems: As they were found.
        page: The text, with what of it is secret.
        unbraced: The values that hold a `$NAME` without braces, and that name.
    """

    root: Node | None
    problems: tuple[Problem, ...]
    page: Page
    unbraced: Mapping[str, str]
