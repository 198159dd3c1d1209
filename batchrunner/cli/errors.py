"""`batchrunner errors`: lists failed rows and quarantined shards."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    retry_line,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.rendering import output_option, print_blocks, print_records
from batchrunner.cli.terminal import columns, say

_MESSAGE_LENGTH = 100
_WIDE = 120
"""Columns of a terminal from which on a table has room for what is needed to mend a row."""


@click.command("errors")
@click.argument("place")
@spec_options
@click.option("--rows", is_flag=True, help="Every row, in place of a line for each kind of error.")
@storage_options("a PLACE that is no spec")
@output_option
def command(place: str, rows: bool, storage_options: dict[str, Any], output: str) -> None:
    """List what failed: dead letters, by kind of error, with an example. PLACE is as for `status`.

    Also the first 100 failed rows of each shard that failed as a whole and is not committed
    (`shard_failed`). Quarantined shards are listed on stderr, with their reason.
    """
    from batchrunner.views.dead_letters import error_groups, read_dead_letters

    checkpoint = checkpoint_of(place, storage_options)
    is_narrow = output == "table" and (columns() or _WIDE) < _WIDE
    if rows:
        # Give all records the same keys: tables and CSV need them.
        absent = {"raw": None, "raw_base64": None, "code": "", "traceback": None}
        records = [{**absent, **dead_letter} for dead_letter in read_dead_letters(checkpoint)]
        if is_narrow:
            print_blocks([_block_of_row(record) for record in records])
        else:
            print_records([_in_cells(r) for r in records] if output == "table" else records, output)
    else:
        records = [group.to_dict() for group in error_groups(checkpoint)]
        if is_narrow:
            print_blocks([_block_of_kind(record) for record in records])
        else:
            _print_kinds(records, output)
    quarantined = checkpoint.quarantined().values()
    for one in quarantined:
        attempts = f"after {one.attempts} attempts" if one.attempts > 1 else "at once"
        say(f"shard {one.shard} was quarantined {attempts}: {one.reason}")
    if not records and not quarantined:
        say("no row failed")
    elif output == "table":
        spec = spec_words(place) if is_spec(place) else "SPEC"
        has_rows = any(not record["shard_failed"] for record in records)
        say(f"next: fix it, then {retry_line(spec, rows=has_rows)}")


def _print_kinds(records: list[dict[str, Any]], output: str) -> None:
    print_records(
        [_short(record) for record in records] if output == "table" else records,
        output,
        first_to_go=("shards", "stage", "where"),
    )


def _in_cells(dead_letter: dict[str, object]) -> dict[str, object]:
    """Return the fields that fit into a table: not the traceback, which has many lines."""
    shown = ("shard", "source", "unit", "at", "stage", "error", "message", "code", "shard_failed")
    return {**{key: dead_letter[key] for key in shown}, "row": _row_of(dead_letter)}


def _row_of(dead_letter: dict[str, Any]) -> str:
    if dead_letter["raw"] is None:
        return f"base64: {dead_letter['raw_base64']}"
    return str(dead_letter["raw"])


def _block_of_kind(record: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the heading and the facts of a kind of error, the most needed first."""
    failed = "failed " if record["shard_failed"] else ""
    shards = f"{record['shards']:,} {failed}shard{'' if record['shards'] == 1 else 's'}"
    rows = f"{record['rows']:,} row{'' if record['rows'] == 1 else 's'} in {shards}"
    return f"{rows}: {record['error']}: {_first_line(record)}", _facts(record, record["raw"])


def _block_of_row(record: dict[str, Any]) -> tuple[str, dict[str, str]]:
    failed = " (failed)" if record["shard_failed"] else ""
    heading = f"shard {record['shard']:,}{failed}: {record['error']}: {_first_line(record)}"
    return heading, _facts(record, _row_of(record))


def _facts(record: dict[str, Any], row: str) -> dict[str, str]:
    where = f"{record['source']}, {record['unit']} {record['at']}"
    return {"code": record["code"], "where": where, "row": row}


def _first_line(record: dict[str, Any]) -> str:
    return str(record["message"]).partition("\n")[0][:_MESSAGE_LENGTH]


def _short(record: dict[str, object]) -> dict[str, object]:
    place = f"{record['source']}, {record['unit']} {record['at']}"
    message = _first_line(record)
    at = f" (at {record['code']})" if record["code"] else ""
    shards = f"{record['shards']:,} failed" if record["shard_failed"] else record["shards"]
    fields = {key: record[key] for key in ("stage", "error", "rows")}
    return {**fields, "shards": shards, "example": f"{message}{at}", "where": place}
