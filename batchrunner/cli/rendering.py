"""Records on stdout, as a table for people or as JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

from batchrunner.cli.fitting import Column, fitted
from batchrunner.cli.terminal import columns, on_one_line, put, say, show

FORMATS = ("table", "json", "jsonl", "csv")

Record = dict[str, Any]


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o` to a command that reads."""
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

    On a terminal, a table is fitted: long texts are cut, but for those of *ids*, and columns left
    out, *first_to_go* before others. Where no terminal reads it, and in all other forms, every value
    is whole.
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
    """Print one record; as a table, a line a field."""
    if output == "json":
        put(json.dumps(record, indent=2) + "\n")
    elif output == "table":
        width = max(map(len, record))
        for key, value in record.items():
            # A line of a value must not pass for a field.
            text = _shown(value).replace("\n", "\n" + " " * (width + 2))
            show(f"{key.replace('_', ' '):<{width}}  {text}")
    else:
        print_records([record], output)


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
