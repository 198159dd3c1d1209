"""The one way onto the terminal: what others wrote, such as rows and file names, cannot steer it.

A row that holds `ESC ]52;…` would write the clipboard of whoever looks at it, a carriage return would
write over a line, and U+202E would turn one round.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata

import click

_KEPT = "\n\t\u200c\u200d"
"""Neither is printable, and none can steer: the last two join letters of scripts and emoji."""


def harmless(text: str) -> str:
    """Return *text* with all that could steer a terminal as an escape; its lines stay lines."""
    if text.isascii() and text.isprintable():  # nearly every text there is
        return text
    return "".join(map(_harmless, text))


def on_one_line(text: str) -> str:
    """Return *text* as `harmless` does, its line breaks and tabs as escapes, too."""
    return harmless(text.replace("\n", "\\n").replace("\t", "\\t"))


def _harmless(char: str) -> str:
    if char.isprintable() or char in _KEPT or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


def say(text: str, *, end: str = "\n") -> None:
    """Write a message to stderr."""
    click.echo(harmless(text) + end, nl=False, err=True)


def say_error(text: str) -> None:
    """Write what went wrong to stderr."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    say(text)


def say_in_place(text: str, *, last: bool) -> None:
    """Write a line that the next one is written over, and *last* nothing; only onto a terminal."""
    if sys.stderr.isatty():
        click.echo(harmless(text) + ("\r\x1b[K" if last else "\r"), nl=False, err=True)


def show(text: str, *, end: str = "\n") -> None:
    """Write to stdout what people read."""
    click.echo(harmless(text) + end, nl=False)


def put(data: str) -> None:
    """Write to stdout what programs read, every character as it is, unless a terminal reads it."""
    if sys.stdout.isatty():
        data = harmless(data.replace("\r\n", "\n"))  # the line breaks of CSV
    click.echo(data, nl=False)


def columns() -> int | None:
    """Return how wide the terminal at stdout is; None when no terminal is there."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
