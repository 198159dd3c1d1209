"""Prints all text for the terminal, escaped: rows, file names and the like cannot steer it.

A row that holds `ESC ]52;…` would write the clipboard of the user, a carriage return would overwrite a
line, and U+202E would reverse one.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata

import click

_HARMLESS = "\n\t\u200c\u200d"
"""Not printable for Python, but unable to steer a terminal. The last two join letters and emoji."""


def harmless(text: str) -> str:
    """Return *text* with characters that could steer a terminal escaped; its lines stay lines."""
    if text.isascii() and text.isprintable():  # the fast path of nearly every text
        return text
    return "".join(map(_escaped, text))


def on_one_line(text: str) -> str:
    """Return *text* as `harmless` does, with line breaks and tabs escaped, too."""
    return harmless(text.replace("\n", "\\n").replace("\t", "\\t"))


def _escaped(char: str) -> str:
    if char.isprintable() or char in _HARMLESS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape").decode()


def say(text: str, *, end: str = "\n") -> None:
    """Write a message to stderr."""
    click.echo(harmless(text) + end, nl=False, err=True)


def say_error(text: str) -> None:
    """Write an error message to stderr."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    say(text)


def say_in_place(text: str, *, last: bool) -> None:
    """Write a line to stderr, if it is a terminal: the next one overwrites it, *last* erases it."""
    if sys.stderr.isatty():
        click.echo(harmless(text) + ("\r\x1b[K" if last else "\r"), nl=False, err=True)


def show(text: str, *, end: str = "\n") -> None:
    """Write to stdout for people, escaped."""
    click.echo(harmless(text) + end, nl=False)


def put(data: str) -> None:
    """Write to stdout for programs, unchanged; escaped if stdout is a terminal."""
    if sys.stdout.isatty():
        data = harmless(data.replace("\r\n", "\n"))  # the line breaks of CSV
    click.echo(data, nl=False)


def columns() -> int | None:
    """Return the width of the terminal at stdout; None without a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
