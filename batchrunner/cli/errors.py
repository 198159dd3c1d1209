"""`batchrunner errors`: lists failed rows and quarantined shards."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say

_MESSAGE_LENGTH = 100


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
    if rows:
        # Give all records the same keys: tables and CSV need them.
        absent = {"raw": None, "raw_base64": None, "code": "", "traceback": None}
        records = [{**absent, **dead_letter} for dead_letter in read_dead_letters(checkpoint)]
        print_records([_in_cells(r) for r in records] if output == "table" else records, output)
    else:
        records = [group.to_dict() for group in error_groups(checkpoint)]
        print_records(
            [_short(record) for record in records] if output == "table" else records,
            output,
            first_to_go=("shards", "stage", "where"),
        )
    quarantined = checkpoint.quarantined().values()
    for one in quarantined:
        attempts = f"after {one.attempts} attempts" if one.attempts > 1 else "at once"
        say(f"shard {one.shard} was quarantined {attempts}: {one.reason}")
    if not records and not quarantined:
        say("no row failed")
    elif output == "table":
        what = "--rows " if records else ""
        spec = spec_words(place) if is_spec(place) else "SPEC"
        say(f"next: fix it, then batchrunner retry {what}{spec}")


def _in_cells(dead_letter: dict[str, object]) -> dict[str, object]:
    """Return the fields that fit into a table: not the traceback, which has many lines."""
    row = (
        dead_letter["raw"]
        if dead_letter["raw"] is not None
        else f"base64: {dead_letter['raw_base64']}"
    )
    shown = ("shard", "source", "unit", "at", "stage", "error", "message", "code", "shard_failed")
    return {**{key: dead_letter[key] for key in shown}, "row": row}


def _short(record: dict[str, object]) -> dict[str, object]:
    place = f"{record['source']}, {record['unit']} {record['at']}"
    message = str(record["message"]).partition("\n")[0][:_MESSAGE_LENGTH]
    at = f" (at {record['code']})" if record["code"] else ""
    shards = f"{record['shards']:,} failed" if record["shard_failed"] else record["shards"]
    fields = {key: record[key] for key in ("stage", "error", "rows")}
    return {**fields, "shards": shards, "example": f"{message}{at}", "where": place}
