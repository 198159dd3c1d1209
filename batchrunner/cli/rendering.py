"""Records on stdout, as a table for people or as JSON and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

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


def print_records(records: Sequence[Record], output: str) -> None:
    """Print *records*, which all have the same keys."""
    if output == "json":
        click.echo(json.dumps(records, indent=2))
    elif output == "jsonl":
        for record in records:
            click.echo(json.dumps(record))
    elif output == "csv":
        writer = csv.DictWriter(sys.stdout, fieldnames=list(records[0]) if records else [])
        writer.writeheader()
        writer.writerows(records)
    else:
        _print_table(records)


def print_record(record: Record, output: str) -> None:
    """Print one record; as a table, a line a field."""
    if output == "json":
        click.echo(json.dumps(record, indent=2))
    elif output == "table":
        width = max(map(len, record))
        for key, value in record.items():
            click.echo(f"{key.replace('_', ' '):<{width}}  {_shown(value)}")
    else:
        print_records([record], output)


def _print_table(records: Iterable[Record]) -> None:
    rows = [list(map(_shown, record.values())) for record in records]
    if not rows:
        return
    header = [key.replace("_", " ") for key in next(iter(records))]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
