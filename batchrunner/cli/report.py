"""`batchrunner report`: makes one HTML file that shows what happened in a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.terminal import put, say

if TYPE_CHECKING:
    from batchrunner.views.report_data import RunReport

STDOUT = "-"


@click.command("report")
@click.argument("place")
@spec_options
@click.option(
    "-O",
    "--file",
    metavar="FILE",
    help="Where to write it; - for stdout. By default NAME-report.html here, and JSON to stdout.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(("html", "json")),
    default="html",
    show_default=True,
    help="A page for people, or its values for programs.",
)
@storage_options("a PLACE that is no spec")
def command(place: str, file: str | None, output: str, storage_options: dict[str, Any]) -> None:
    """Make a report of a run: one HTML file. PLACE is as for `status`.

    At any time, also of a run that is running, dead or damaged. Reads the checkpoint alone: no Ray, no
    source, no sink. The file needs no network.
    """
    from batchrunner.views.report_data import run_report

    checkpoint = checkpoint_of(place, storage_options)
    report = run_report(checkpoint, spec=spec_words(place) if is_spec(place) else "")
    if output == "json":
        write(json.dumps(report.to_dict(), indent=2) + "\n", file or STDOUT)
    else:
        write(report.to_html(), file or _default_name(report))
    say(report.verdict.happened)


def write(text: str, file: str) -> None:
    """Write *text* to *file*, whole or not at all; `-` is stdout.

    Raises:
        InvalidSpecError: The file cannot be written.
    """
    from batchrunner.errors import InvalidSpecError

    if file == STDOUT:
        put(text)
        return
    path = Path(file)
    part = path.with_name(f".{path.name}.tmp")
    try:
        # Beside it first: a browser that shows the last report must not reload half a page.
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidSpecError(
            f"{file} cannot be written: {error.strerror}; give another place with --file"
        ) from error
    say(f"report: {file} ({len(text.encode()) / 1024:,.0f} KiB)")


def _default_name(report: RunReport) -> str:
    name = re.sub(r"[^\w.-]+", "-", report.name).strip(".-")
    return f"{name or 'batch'}-report.html"
