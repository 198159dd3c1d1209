"""`batchrunner status`: prints how far a run is, or follows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.rendering import output_option, print_record
from batchrunner.cli.terminal import to_stdout

if TYPE_CHECKING:
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.driver.progress import Display


@click.command("status")
@click.argument("place")
@spec_options
@storage_options("a PLACE that is no spec")
@click.option("--watch", is_flag=True, help="Follow the run until no driver runs it.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.5),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch, how often to look. A driver stores its figures every 5 s.",
)
@output_option
def command(
    place: str, storage_options: dict[str, Any], watch: bool, every: float, output: str
) -> int:
    """Print how far a run is. PLACE is its spec, or its checkpoint folder or s3:// URI.

    Reads the checkpoint alone: no Ray, no source, no sink, on any machine.

    With --watch, the live view on a terminal, plain lines elsewhere, or JSON lines with -o json; then
    the status. The exit code says how the run ended: 0 complete · 1 shards or too many rows failed ·
    75 stopped with work left, or its driver died. Ctrl-C ends the watch, not the run.
    """
    checkpoint = checkpoint_of(place, storage_options)
    if not watch:
        _print(_status(checkpoint, place), output)
        return 0
    if output in ("json", "jsonl"):
        return _watch_in_json(checkpoint, place, every=every)
    code = _watch(checkpoint, "auto", every=every)
    _print(_status(checkpoint.reopened(), place), output)
    return code


def _watch_in_json(checkpoint: Checkpoint, place: str, *, every: float) -> int:
    from batchrunner.views.json_display import JsonDisplay
    from batchrunner.views.json_events import JsonEvents

    events = JsonEvents(sys.stdout)
    with to_stdout():
        code = _watch(checkpoint, JsonDisplay(events), every=every)
        events.write("status", status=_status(checkpoint.reopened(), place), exit_code=code)
    return code


def _watch(checkpoint: Checkpoint, mode: str | Display, *, every: float) -> int:
    from batchrunner.views.displays import display_of
    from batchrunner.views.watching import Watching, watch

    watching = Watching(checkpoint)
    with closing(display_of(mode)) as display:
        return watch(watching, display, seconds=every, pause=time.sleep)


def _print(status: dict[str, Any], output: str) -> None:
    """Print *status*; for people without the lines that have nothing to say, such as a phase that is over."""
    from batchrunner.driver.report_text import usage

    if output in ("table", "csv"):  # which hold text, not values in values
        status = {**status, "stages": _stages(status["stages"])}
        status["usage"] = usage(status.pop("spent"), status["usage"])
    if output == "table":
        status = {name: value for name, value in status.items() if value not in ("", None)}
    print_record(status, output)


def _stages(clocks: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each stage."""
    from batchrunner.views.stage_times import in_words
    from batchrunner.worker.stage_clock import StageClock

    stages = map(StageClock.from_dict, clocks)
    return "\n".join(f"{one.name}: {in_words(one)}" for one in stages if in_words(one))


def _status(checkpoint: Checkpoint, place: str) -> dict[str, Any]:
    from batchrunner.views.status import status_of

    name = spec_words(place)
    return status_of(checkpoint, place=name, spec=name if is_spec(place) else "SPEC").to_dict()
