"""`batchrunner errors`."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.store_options import storage_options
from batchrunner.cli.terminal import say

_MESSAGE_LENGTH = 100


@click.command("errors")
@click.argument("place")
@click.option("--rows", is_flag=True, help="Every row, in place of a line for each kind of error.")
@storage_options("a PLACE that is no spec")
@output_option
def command(place: str, rows: bool, storage_options: dict[str, Any], output: str) -> None:
    """List what failed: rows set aside, by kind of error, with an example. PLACE is as for `status`.

    Shards that were set apart are told on stderr, with their reason.
    """
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.cli.places import checkpoint_of
    from batchrunner.set_aside import error_groups, rows_set_aside

    checkpoint = Checkpoint.current(checkpoint_of(place, storage_options))
    if rows:
        print_records([_same_keys(letter) for letter in rows_set_aside(checkpoint)], output)
    else:
        records = [group.to_dict() for group in error_groups(checkpoint)]
        print_records(
            [_short(record) for record in records] if output == "table" else records,
            output,
            first_to_go=("shards", "stage", "where"),
        )
    for quarantine in checkpoint.quarantined().values():
        attempts = f"after {quarantine.attempts} attempts" if quarantine.attempts > 1 else "at once"
        say(f"shard {quarantine.shard} failed {attempts}: {quarantine.reason}")


def _same_keys(letter: dict[str, object]) -> dict[str, object]:
    return {"raw": None, "raw_base64": None, **letter}


def _short(record: dict[str, object]) -> dict[str, object]:
    place = f"{record['source']}, {record['unit']} {record['at']}"
    message = str(record["message"]).partition("\n")[0][:_MESSAGE_LENGTH]
    kept = ("stage", "error", "rows", "shards")
    return {**{key: record[key] for key in kept}, "example": message, "where": place}
