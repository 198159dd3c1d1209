"""Prints all text for the terminal, escaped: rows, file names and the like cannot steer it."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator

import click

from batchrunner.errors import BatchRunnerError
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
    "to_stdout",
]


def say(text: str, *, end: str = "\n") -> None:
    """Write a message to stderr, or lose it: a run that is complete stays so if stderr is gone."""
    with contextlib.suppress(OSError):
        # Not `err=True`: where stderr is ASCII, click writes past what keeps lines above a live view.
        click.echo(harmless(text) + end, nl=False, file=sys.stderr)


def say_error(text: str) -> None:
    """Write an error message to stderr, or lose it as `say` does."""
    with contextlib.suppress(OSError):
        click.secho("error: ", fg="red", bold=True, nl=False, file=sys.stderr)
    say(text)


def say_in_place(text: str, *, last: bool) -> None:
    """Write a line to stderr, if it is a terminal: the next one overwrites it, *last* erases it."""
    if sys.stderr.isatty():
        say(text, end="\r\x1b[K" if last else "\r")


def show(text: str, *, end: str = "\n") -> None:
    """Write to stdout for people, escaped."""
    with to_stdout():
        click.echo(harmless(text) + end, nl=False)


def show_marked(word: str, text: str, *, colour: str) -> None:
    """Write a line to stdout for people: *word* in *colour*, and *text* on the same line, escaped."""
    with to_stdout():
        click.secho(word, fg=colour, bold=True, nl=False)
        click.echo(on_one_line(text))


def put(data: str) -> None:
    """Write to stdout for programs, unchanged; escaped if stdout is a terminal."""
    if sys.stdout.isatty():
        data = harmless(data.replace("\r\n", "\n"))  # the line breaks of CSV
    with to_stdout():
        click.echo(data, nl=False)


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Write to stdout inside the block.

    Raises:
        click.exceptions.Exit: The reader of stdout, such as `head`, has ended: so does the command, with 0.
        BatchRunnerError: Stdout cannot be written, as on a full disk.
    """
    try:
        yield
    except BrokenPipeError as error:
        raise click.exceptions.Exit(0) from error
    except OSError as error:
        raise BatchRunnerError(
            f"stdout cannot be written: {error.strerror}; what it has got is not whole"
        ) from error


def columns() -> int | None:
    """Return the width of the terminal at stdout; None without a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
