"""`batchrunner runs`: read and compact the analytics store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import report_options, store_options
from batchrunner.cli.rendering import output_option, print_record, print_records
from batchrunner.cli.terminal import columns, say
from batchrunner.cli.terminal import show as show_text

if TYPE_CHECKING:
    from batchrunner.analytics import AnalyticsStore, RecordedRun
    from batchrunner.analytics.run_summaries import RunSummary


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
    runs = _open(store, storage_options).list_runs(
        limit=which["limit"], capability_id=which["capability"], entity_id=which["entity"]
    )
    print_records(
        [_listed(run, output) for run in runs],
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
    recorded = opened.read_run(run)
    overview = {**_summary(recorded), "report_uri": opened.report_uri(recorded.run_uid)}
    if output == "table":
        print_record(_shown(overview, output), output)
        for table, rows in recorded.records.items():
            show_text(f"\n{table}")
            print_records([_shown(row, output) for row in rows], output)
    elif output == "json":
        records = {table: _plain(list(rows)) for table, rows in recorded.records.items()}
        print_record({**_plain(overview), "records": records}, output)
    else:
        lines = [
            {"table": table, "column": column, "row": number, "value": _plain(value)}
            for table, rows in recorded.records.items()
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
    help="Match records by this column, instead of by all their columns of text; may be repeated.",
)
@store_options
@output_option
def compare_(first: str, second: str, on: tuple[str, ...], output: str, **store: Any) -> None:
    """List the values in which the records of two runs differ.

    The shards of batches are matched by their parts. Names that only one of the runs ran on, such as two different models, are left out.
    """
    from batchrunner.analytics.comparison import compare

    opened = _open(store["store"], store["storage_options"])
    differences = compare(opened.read_run(first), opened.read_run(second), on=on)
    rows = [_shown(asdict(difference), output) for difference in differences]
    print_records(rows, output, first_to_go=["table"])
    say(f"{len(differences):,} values differ")


@command.command("report")
@click.argument("runs", nargs=-1)
@click.option(
    "--on",
    multiple=True,
    metavar="COLUMN",
    help="Match records by this column, as in `runs compare`; may be repeated.",
)
@report_options("runs")
@store_options
def report_(runs: tuple[str, ...], on: tuple[str, ...], **how: Any) -> None:
    """Compare RUNS in one HTML file: totals, seconds, failures, values that differ.

    The others are held against the first. By default, the latest five of the capability that ran last.
    """
    from batchrunner.analytics.record import run_uid_of
    from batchrunner.cli.report import write_report
    from batchrunner.views.report_runs import runs_report

    opened = _open(how["store"], how["storage_options"])
    uids = [run_uid_of(run) for run in runs] or _latest(opened)
    report = runs_report(opened, uids, on=on)
    values = lambda: _plain(report.to_dict())  # noqa: E731 - called for one of the formats only
    write_report(report.to_html, values, name="runs", file=how["file"], output=how["output"])


def _latest(store: AnalyticsStore) -> list[str]:
    from batchrunner.errors import RunNotFoundError

    newest = store.list_runs(limit=1)
    if not newest:
        raise RunNotFoundError(f"{store.uri} has no runs to compare")
    of_one = store.list_runs(limit=5, capability_id=newest[0].capability_id)
    return [run.run_uid for run in of_one]


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
    "--clear",
    is_flag=True,
    help="Delete the replaced files, and what dead writers staged, at once.",
)
@output_option
def compact(store: str, storage_options: dict[str, Any], clear: bool, output: str) -> None:
    """Replace many small files by few large ones, and delete what the last compaction replaced.

    What this one replaces stays until the next, for readers at work. With --clear, these retry.
    """
    report = asdict(_open(store, storage_options).compact(clear=clear))
    print_record({**report, "passed_over": len(report["passed_over"])}, output)


def _listed(run: RunSummary, output: str) -> dict[str, Any]:
    """Return *run* as a row; on a terminal, where cells are cut, with a time that fits into one."""
    row: dict[str, Any] = _shown(asdict(run), output)
    if output == "table" and columns() is not None:
        row["created_at"] = f"{run.created_at:%m-%d %H:%M}Z"
    return row


def _open(uri: str, storage_options: dict[str, Any]) -> AnalyticsStore:
    from batchrunner.analytics import open_store
    from batchrunner.errors import InvalidSpecError

    store = open_store(uri, storage_options=storage_options)
    if not store.list_tables():  # a mistyped --store would look like an empty one
        raise InvalidSpecError(f"{store.uri}: there is no analytics store; give another --store")
    return store


def _summary(run: RecordedRun) -> dict[str, Any]:
    """Return the columns that all rows of *run* share, its tables and its entities."""
    from batchrunner.analytics.run_summaries import RunSummary

    first = dict(run.runs[0])
    for column in ("capability_table", "entity_type", "entity_id"):
        del first[column]
    return {**first, **asdict(RunSummary.of_rows(run.runs))}


def _shown(value: Any, output: str) -> Any:
    """Return *value* for the format *output*: in tables and CSV, a list becomes one text."""
    if isinstance(value, Mapping):
        return {key: _shown(inner, output) for key, inner in value.items()}
    if isinstance(value, list | tuple) and output in ("table", "csv"):
        return ", ".join(map(str, value))
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return *value* as plain JSON values, without loss."""
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
