"""`batchrunner logs`: prints what the workers printed and logged."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import checkpoint_of, spec_options, storage_options
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say, show


@click.command("logs")
@click.argument("place")
@spec_options
@click.option(
    "--session", default="", help="Only lines of this session; its id or the beginning of it."
)
@click.option("-n", "--lines", type=click.IntRange(min=1), help="Only the last so many lines.")
@storage_options("a PLACE that is no spec")
@output_option
def command(
    place: str, session: str, lines: int | None, storage_options: dict[str, Any], output: str
) -> None:
    """Print what the workers printed and logged. PLACE is as for `status`.

    Workers write it into the checkpoint while they run, so it outlives their node: of each worker the
    first 64 KiB and the last 192 KiB.
    """
    from batchrunner.views.logs import log_lines

    checkpoint = checkpoint_of(place, storage_options)
    lines_of_all = log_lines(checkpoint)
    chosen = [line for line in lines_of_all if line.session.startswith(session)][-(lines or 0) :]
    if output == "table":
        for line in chosen:
            show(f"{line.at[:19]} {line.worker} {line.text}")
    else:
        print_records([line.to_dict() for line in chosen], output)
    if not chosen:
        say(f"no worker of {checkpoint.storage.uri} has printed or logged anything")
