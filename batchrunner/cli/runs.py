"""`batchrunner runs`: the analytics store, for people and for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import store_options
from batchrunner.cli.rendering import output_option, print_record, print_records
from batchrunner.cli.terminal import say
from batchrunner.cli.terminal import show as show_text

if TYPE_CHECKING:
    from batchrunner.analytics import AnalyticsStore, RecordedRun


@click.group("runs")
def command() -> None:
    """Read the analytics store: the recorded runs, and the tables of their records."""


@command.command("list")
@store_options
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--capability", metavar="ID", help="Only runs of this capability.")
@click.option("--entity", metavar="ID", help="Only runs on this dataset, model or metric.")
@output_option
def list_(store: str, storage_options: dict[str, Any], output: str, **which: Any) -> None:
    """List the latest runs, the newest first."""
    found = _open(store, storage_options).list_runs(
        limit=which["limit"], capability_id=which["capability"], entity_id=which["entity"]
    )
    print_records(
        [_shown(asdict(run), output) for run in found],
        output,
        ids=["run_uid"],
        first_to_go=["metrics", "tables", "host", "user"],
    )


@command.command()
@click.argument("run")
@store_options
@output_option
def show(run: str, store: str, storage_options: dict[str, Any], output: str) -> None:
    """Show one RUN, by its run_uid or its URI, with all its records."""
    opened = _open(store, storage_options)
    found = opened.read_run(run)
    told = {**_told(found), "report_uri": opened.report_uri(found.runs[0]["run_uid"])}
    if output == "table":
        print_record(_shown(told, output), output)
        for table, rows in found.records.items():
            show_text(f"\n{table}")
            print_records([_shown(row, output) for row in rows], output)
    elif output == "json":
        records = {table: _plain(list(rows)) for table, rows in found.records.items()}
        print_record({**_plain(told), "records": records}, output)
    else:
        lines = [
            {"table": table, "column": column, "row": number, "value": _plain(value)}
            for table, rows in found.records.items()
            for number, row in enumerate(rows)
            for column, value in row.items()
        ]
        print_records(lines, output)


@command.command("compare")
@click.argument("first")
@click.argument("second")
@click.option(
    "--on",
    multiple=True,
    metavar="COLUMN",
    help="Records go together by this column, in place of all their columns of text; may be repeated.",
)
@store_options
@output_option
def compare_(first: str, second: str, on: tuple[str, ...], output: str, **store: Any) -> None:
    """Tell in which values the records of two runs differ.

    The names that only one of them was on, such as of their models, do not keep records apart.
    """
    from batchrunner.analytics.comparison import compare

    opened = _open(store["store"], store["storage_options"])
    found = compare(opened.read_run(first), opened.read_run(second), on=on)
    print_records([_shown(asdict(one), output) for one in found], output, first_to_go=["table"])
    say(f"{len(found):,} values differ")


@command.command()
@click.argument("sql")
@store_options
@output_option
def query(sql: str, store: str, storage_options: dict[str, Any], output: str) -> None:
    """Run one SELECT, in DuckDB's dialect, over the tables of the store."""
    answer = _open(store, storage_options).query_sql(sql)
    print_records([_shown(row, output) for row in answer.to_pylist()], output)


@command.command()
@click.argument("table", required=False)
@store_options
@output_option
def tables(table: str | None, store: str, storage_options: dict[str, Any], output: str) -> None:
    """List the tables, or the columns of one TABLE."""
    opened = _open(store, storage_options)
    if table is not None:
        columns = opened.describe_table(table)
        print_records([{"column": name, "type": kind} for name, kind in columns.items()], output)
        return
    each = [(name, opened.describe_table(name)) for name in opened.list_tables()]
    print_records([{"table": n, "columns": _shown(list(c), output)} for n, c in each], output)


@command.command()
@store_options
@click.option(
    "--clear", is_flag=True, help="Remove at once what is replaced, and what dead writers left."
)
@output_option
def compact(store: str, storage_options: dict[str, Any], clear: bool, output: str) -> None:
    """Make few large files of many small ones, and remove what the last compaction replaced.

    What this one replaces stays until the next, for readers that are at work. With --clear, they
    start again.
    """
    report = asdict(_open(store, storage_options).compact(clear=clear))
    print_record({**report, "passed_over": len(report["passed_over"])}, output)


def _open(place: str, storage_options: dict[str, Any]) -> AnalyticsStore:
    from batchrunner.analytics import open_store
    from batchrunner.errors import InvalidSpecError

    store = open_store(place, storage_options=storage_options)
    if not store.list_tables():
        raise InvalidSpecError(f"{store.uri}: there is no analytics store; give another --store")
    return store


def _told(run: RecordedRun) -> dict[str, Any]:
    from batchrunner.analytics.overview import RunSummary

    first = dict(run.runs[0])
    for place in ("capability_table", "entity_type", "entity_id"):
        del first[place]
    return {**first, **asdict(RunSummary.of_rows(run.runs))}


def _shown(value: Any, output: str) -> Any:
    """Return *value* for *output*: a list in a cell of a table or of CSV is one text."""
    if isinstance(value, Mapping):
        return {key: _shown(inner, output) for key, inner in value.items()}
    if isinstance(value, list | tuple) and output in ("table", "csv"):
        return ", ".join(map(str, value))
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return *value* in what JSON has; nothing of it is lost."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal) and value == value.to_integral_value():  # a sum of integers
        return int(value)
    fits = isinstance(value, str | int | None) or (isinstance(value, float) and isfinite(value))
    return value if fits else str(value)
