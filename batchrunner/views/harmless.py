"""Escapes what could steer a terminal: rows, file names and what is printed come from strangers.

A row that holds `ESC ]52;…` would write the clipboard of the user, a carriage return would overwrite a
line, and U+202E would reverse one.
"""

from __future__ import annotations

import re
import unicodedata

_HARMLESS = "\n\t\u200c\u200d"
"""Not printable for Python, but unable to steer a terminal. The last two join letters and emoji."""

_COLOURS = re.compile(r"(\x1b\[[0-9;:]*m)")
_NO_COLOUR = "\x1b[0m"


def harmless(text: str) -> str:
    """Return *text* with characters that could steer a terminal escaped; its lines stay lines."""
    if text.isascii() and text.isprintable():  # the fast path of nearly every text
        return text
    return "".join(map(_escaped, text))


def on_one_line(text: str) -> str:
    """Return *text* as `harmless` does, with line breaks and tabs escaped, too."""
    return harmless(text.replace("\n", "\\n").replace("\t", "\\t"))


def in_colour(text: str) -> str:
    """Return *text* as `harmless` does, except that its colours stay, and end with it."""
    if "\x1b" not in text:
        return harmless(text)
    pieces = _COLOURS.split(text)
    shown = (piece if at % 2 else harmless(piece) for at, piece in enumerate(pieces))
    return "".join(shown) + (_NO_COLOUR if len(pieces) > 1 else "")


def _escaped(char: str) -> str:
    if char.isprintable() or char in _HARMLESS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()
