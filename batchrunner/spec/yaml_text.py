"""Writes plain values as YAML 1.2, such that reading the text gives the same values.

PyYAML's own writer is for YAML 1.1, where other words need quotes: it would write `0o17` without.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from batchrunner.spec.tree import resolved

Loc = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.@+-]*(?::[A-Za-z0-9_/.@+-]+)*")


def block(
    value: Mapping[str, Any], *, note: Callable[[Loc], str] = lambda _: "", escape: str = ""
) -> str:
    """Return *value* as lines, one for each value that is no mapping; each *escape* is doubled.

    *note* returns a comment for the value at a path, or "".
    """
    return "".join(_lines(value, (), note, escape))


def dotted(loc: Loc) -> str:
    """Return *loc* as `--set` takes it: a key with dots is in quotes."""
    return ".".join(
        str(step) if re.fullmatch(r'[^\s."=]+', str(step)) else json.dumps(str(step))
        for step in loc
    )


def _lines(
    value: Mapping[str, Any], loc: Loc, note: Callable[[Loc], str], escape: str
) -> list[str]:
    lines = []
    for key, inner in value.items():
        at = (*loc, key)
        head = f"{'  ' * len(loc)}{_word(key)}:"
        if isinstance(inner, Mapping) and inner:
            lines += [f"{head}\n", *_lines(inner, at, note, escape)]
        else:
            said = note(at)
            lines.append(f"{head} {flow(inner, escape=escape)}{f'  # {said}' if said else ''}\n")
    return lines


def flow(value: Any, *, escape: str = "") -> str:
    """Return *value* on one line; each *escape* in a text is doubled.

    Raises:
        TypeError: It is not made of texts, numbers, booleans, None, lists and mappings alone.
    """
    if isinstance(value, Mapping):
        pairs = (f"{_word(key)}: {flow(inner, escape=escape)}" for key, inner in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(flow(inner, escape=escape) for inner in value)}]"
    if isinstance(value, str):
        return _word(value.replace(escape, escape * 2) if escape else value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as YAML")


def _word(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a key must be a string, not a {type(text).__name__}")
    if _PLAIN.fullmatch(text) and isinstance(resolved(text, tag=None, plain=True), str):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # Line breaks other than "\n" are folded by YAML, and control characters are refused.
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in quoted)
