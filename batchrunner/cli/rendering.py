"""Print records to stdout: as a table for people, as JSON or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from batchrunner.cli.terminal import columns, on_one_line, put, say, show

FORMATS = ("table", "json", "jsonl", "csv")

_PATH = re.compile(r"\S*/\S*( and [\d,]+ more)?")
_GAP = "  "
_WIDEST_BLOCK = 120
_NARROWEST = 12
"""Least width of a column that is cut, in cells; if that does not fit, columns are left out."""

Record = dict[str, Any]


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o` to a command that prints records."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)


def print_records(
    records: Sequence[Record],
    output: str,
    *,
    ids: Collection[str] = (),
    first_to_go: Sequence[str] = (),
) -> None:
    """Print *records*, which all have the same keys.

    On a terminal, a table is fitted to its width: long texts are cut, except in the columns *ids*,
    then columns are left out, *first_to_go* before others. Without a terminal, and in all other
    formats, every value is printed in full.
    """
    if output == "json":
        put(json.dumps(records, indent=2) + "\n")
    elif output == "jsonl":
        for record in records:
            put(json.dumps(record) + "\n")
    elif output == "csv":
        put(_csv(records))
    elif records:
        _print_table(_table(records, ids), first_to_go=first_to_go)


def print_record(record: Record, output: str) -> None:
    """Print one record; as a table, one line per field."""
    if output == "json":
        put(json.dumps(record, indent=2) + "\n")
    elif output == "table":
        width = max(map(len, record))
        for key, value in record.items():
            # Indented, so that a line break in a value cannot look like another field.
            text = _shown(value).replace("\n", "\n" + " " * (width + 2))
            show(f"{key.replace('_', ' '):<{width}}  {text}")
    else:
        print_records([record], output)


def print_blocks(blocks: Iterable[tuple[str, Mapping[str, str]]]) -> None:
    """Print each heading with its facts below it, for a terminal too narrow for a table.

    The last fact of a block, the example, is cut to a line; the others are printed in full.
    """
    width = columns() or _WIDEST_BLOCK
    for heading, facts in blocks:
        show(on_one_line(heading))
        named = max(map(len, facts)) + len(_GAP)
        *whole, (last, example) = facts.items()
        for name, text in whole:
            if text:
                show(f"  {name:<{named}}{on_one_line(text)}")
        show(f"  {last:<{named}}{_beginning_of(on_one_line(example), width - named - 2)}")


def _beginning_of(text: str, width: int) -> str:
    return text if cells_of(text) <= width else _beginning(text, width - 1) + "…"


def _csv(records: Sequence[Record]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(records[0]) if records else [])
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _table(records: Sequence[Record], ids: Collection[str]) -> list[Column]:
    return [
        Column(
            name=on_one_line(key.replace("_", " ")),
            cells=[on_one_line(_shown(record[key])) for record in records],
            rigid=key in ids
            or all(isinstance(record[key], int | float | None) for record in records),
        )
        for key in records[0]
    ]


def _print_table(table: Sequence[Column], *, first_to_go: Sequence[str]) -> None:
    names = [name.replace("_", " ") for name in first_to_go]
    lines, left_out = fitted(table, width=columns(), first_to_go=names)
    for line in lines:
        show(line)
    if left_out:
        say(f"no room for: {', '.join(left_out)}; a wider terminal or -o json shows all")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its heading.
        cells: Its texts, one per row, without line breaks.
        rigid: It is never cut: half a number or id is of no use.
    """

    name: str
    cells: Sequence[str]
    rigid: bool = False

    @property
    def width(self) -> int:
        """Width of its widest text, in cells of a terminal."""
        return max(map(cells_of, (self.name, *self.cells)))

    @property
    def narrowest(self) -> int:
        """Least width to which it can be cut, in cells of a terminal."""
        return self.width if self.rigid else min(self.width, _NARROWEST)


def fitted(
    table: Sequence[Column], *, width: int | None, first_to_go: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the lines of *table*, and the names of the columns for which there was no room.

    Args:
        table: Its columns, from left to right.
        width: Width of the terminal in cells; None for no limit.
        first_to_go: Columns to leave out, in this order, when cutting is not enough; then others,
            from the right. At least one column stays.
    """
    shown, left_out = list(table), list[str]()
    while width is not None and len(shown) > 1 and _least(shown) > width:
        named = (column for name in first_to_go for column in shown if column.name == name)
        column = next(named, None) or _least_important(shown)
        shown.remove(column)
        left_out.append(column.name)
    widths = _widths(shown, width)
    rows = [[column.name for column in shown], *zip(*(c.cells for c in shown), strict=True)]
    return [_line(row, widths) for row in rows], left_out


def _least(table: Sequence[Column]) -> int:
    return sum(column.narrowest for column in table) + len(_GAP) * (len(table) - 1)


def _least_important(table: Sequence[Column]) -> Column:
    """Return the column to leave out next: the last one that is not rigid, and never the first."""
    return next((c for c in reversed(table[1:]) if not c.rigid), table[-1])


def _widths(table: Sequence[Column], width: int | None) -> list[int]:
    """Return the width of each column; if needed, the widest are cut to one common limit."""
    widths = [column.width for column in table]
    if width is None:
        return widths
    room = width - len(_GAP) * (len(table) - 1)
    least = [column.narrowest for column in table]
    limit = min(room, max(widths))
    # One cell at a time is fast enough: a terminal has a few hundred.
    while limit > 1 and sum(_limited(widths, least, limit)) > room:
        limit -= 1
    return _limited(widths, least, limit)


def _limited(widths: Sequence[int], least: Sequence[int], limit: int) -> list[int]:
    return [max(low, min(width, limit)) for width, low in zip(widths, least, strict=True)]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [_cut(text, width) for text, width in zip(row, widths, strict=True)]
    padded = (text + " " * (w - cells_of(text)) for text, w in zip(cells, widths, strict=True))
    return _GAP.join(padded).rstrip()


def _cut(text: str, width: int) -> str:
    """Return *text* cut to *width* cells; a path loses its beginning, since its end says more."""
    if cells_of(text) <= width:
        return text
    if _PATH.fullmatch(text):
        return "…" + _beginning(text[::-1], width - 1)[::-1]
    return _beginning_of(text, width)


def _beginning(text: str, width: int) -> str:
    for at in range(1, len(text) + 1):
        if cells_of(text[at - 1]) > width:
            return text[: at - 1]
        width -= cells_of(text[at - 1])
    return text


def cells_of(text: str) -> int:
    """Return how many cells of a terminal *text* takes."""
    if text.isascii():
        return len(text)
    from batchrunner.spec.diagnosis import cells

    return sum(map(cells, text))
