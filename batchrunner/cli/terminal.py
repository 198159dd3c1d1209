"""Prints all text for the terminal, escaped: rows, file names and the like cannot steer it."""

from __future__ import annotations

import shutil
import sys

import click

from batchrunner.views.harmless import harmless, on_one_line

__all__ = [
    "columns",
    "harmless",
    "on_one_line",
    "put",
    "say",
    "say_error",
    "say_in_place",
    "show",
]


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


def show_marked(word: str, text: str, *, colour: str) -> None:
    """Write a line to stdout for people: *word* in *colour*, and *text* on the same line, escaped."""
    click.secho(word, fg=colour, bold=True, nl=False)
    click.echo(on_one_line(text))


def put(data: str) -> None:
    """Write to stdout for programs, unchanged; escaped if stdout is a terminal."""
    if sys.stdout.isatty():
        data = harmless(data.replace("\r\n", "\n"))  # the line breaks of CSV
    click.echo(data, nl=False)


def columns() -> int | None:
    """Return the width of the terminal at stdout; None without a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
