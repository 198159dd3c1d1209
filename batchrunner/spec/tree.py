"""The tree of plain values and offsets that a YAML text is parsed to, and the values of scalars."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from batchrunner.spec.diagnosis import Page, Problem

CORE = "tag:yaml.org,2002:"
"""Prefix of the tags of YAML's core schema."""

MAX_CHARACTERS = 1 << 20
"""Most characters of a text, and of its values with every alias expanded."""

MAX_DEPTH = 50
"""Most levels of a text with every alias expanded."""

MAX_NODES = 20_000
"""Most keys and values of a text with every alias expanded."""

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **{f"{sign}.{word}": math.inf for sign in ("", "+") for word in ("inf", "Inf", "INF")},
    **{f"-.{word}": -math.inf for word in ("inf", "Inf", "INF")},
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_WHOLE = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9A-Fa-f]+")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TYPES = {"null": type(None), "bool": bool, "int": int, "float": float}
_MAX_DIGITS = 400


class Node(NamedTuple):
    """One value of a text. A tuple, because a text has thousands and tuples are made fastest.

    Attributes:
        value: Plain Python: str, int, float, bool, None, list, or dict with str keys.
        start: Offset of its first character in the text; *end* is one past its last.
        children: Its items, by key or by index.
        keys: Offset of each key.
        height: Levels below this one.
        broken: A problem of this value is reported already; others would follow from it.
        from_environment: Its text refers to a variable.
        written: Its text before variables are replaced; None where no `$` is in it.
        fault: A variable of its text cannot be replaced. Reported only if the value is in the spec
            that results, and not in a profile that is not chosen, say.
        layer: Number of the text that it is from, of those that make one spec.
    """

    value: object
    start: int
    end: int
    children: Mapping[str | int, Node] = MappingProxyType({})
    keys: Mapping[str, int] = MappingProxyType({})
    height: int = 0
    broken: bool = False
    from_environment: bool = False
    written: str | None = None
    fault: Problem | None = None
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Within:
    """Where a text stands among those that make one spec: limits count for all of them together.

    Attributes:
        layer: Number of the text.
        depth: Levels above its values.
        secret: All its values are secret.
        nodes: Keys and values of the texts before it.
        characters: Characters of the values before it.
    """

    layer: int = 0
    depth: int = 0
    secret: bool = False
    nodes: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class ParsedText:
    """A parsed text and its problems.

    Attributes:
        root: None when the text is empty or could not be parsed to its end.
        problems: In the order of parsing.
        page: The text, with the spans of its secrets.
        unbraced: Maps each value with a `$NAME` without braces to that name.
        nodes: Keys and values of this text and those before it.
        characters: Characters of their values.
    """

    root: Node | None
    problems: tuple[Problem, ...]
    page: Page
    unbraced: Mapping[str, str]
    nodes: int = 0
    characters: int = 0


def resolved(text: str, *, tag: str | None, plain: bool) -> Scalar:
    """Return the value of a scalar; *plain* means without quotes, and not a block.

    Raises:
        ValueError: The tag is not of the core schema, or the text is not of the tag's type.
    """
    if tag in {"!", CORE + "str"} or (tag is None and not plain):
        return text
    value = _plain(text)
    if tag is None:
        return value
    kind = tag.removeprefix(CORE)
    if not tag.startswith(CORE) or kind not in _TYPES:
        raise ValueError(f"the tag {shown(tag)} is not supported: a spec holds plain values only")
    # `type` and not `isinstance`, since a bool is an int.
    if kind == "float" and type(value) is int:
        return float(value)
    if type(value) is not _TYPES[kind]:
        raise ValueError(f"this is not what the tag {shown(tag)} says: correct or remove one")
    return value


def shown(tag: str) -> str:
    """Return *tag* as it is written in YAML, such as `!!int`."""
    return f"!!{tag.removeprefix(CORE)}" if tag.startswith(CORE) else tag


def _plain(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    whole = _WHOLE.fullmatch(text)
    if not whole and not _REAL.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:  # `int` takes quadratic time
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits; put a text in quotes")
    if whole:
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if math.isinf(value := float(text)):
        raise ValueError("the number is too large; put a text in quotes")
    return value
