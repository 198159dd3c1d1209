"""`batchrunner report`: makes one HTML file that shows what happened in a run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    report_options,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.terminal import put, say

_STDOUT = "-"


@click.command("report")
@click.argument("place")
@spec_options
@report_options("NAME")
@storage_options("a PLACE that is no spec")
def command(place: str, file: str | None, output: str, storage_options: dict[str, Any]) -> None:
    """Make a report of a run: one HTML file. PLACE is as for `status`.

    At any time, also of a run that is running, dead or damaged. Reads the checkpoint alone: no Ray, no
    source, no sink. The file needs no network.
    """
    from batchrunner.views.report_data import run_report

    checkpoint = checkpoint_of(place, storage_options)
    report = run_report(checkpoint, spec=spec_words(place) if is_spec(place) else "")
    name = re.sub(r"[^\w.-]+", "-", report.name).strip(".-") or "batch"
    write_report(report.to_html, report.to_dict, name=name, file=file, output=output)
    say(report.verdict.happened)


def write_report(
    html: Callable[[], str],
    values: Callable[[], Any],
    *,
    name: str,
    file: str | None,
    output: str,
) -> None:
    """Write a report in the format *output* to *file*, whole or not at all; `-` is stdout.

    Raises:
        InvalidSpecError: The file cannot be written.
    """
    if output == "json":
        text, file = json.dumps(values(), indent=2) + "\n", file or _STDOUT
    else:
        text, file = html(), file or f"{name}-report.html"
    if file == _STDOUT:
        put(text)
    else:
        _write(text, file)
        say(f"report: {file} ({len(text.encode()) / 1024:,.0f} KiB)")


def _write(text: str, file: str) -> None:
    from batchrunner.errors import InvalidSpecError

    path = Path(file)
    try:
        if path.is_dir():
            raise InvalidSpecError(
                f"{file} is a folder; name a file in it: --file {path / 'report.html'}"
            )
        if path.exists() and not path.is_file():
            path.write_text(text, "utf-8")  # a pipe or a device: there is nothing to replace
        else:
            _replace(path.resolve(), text)  # a link stays, and what it leads to is replaced
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidSpecError(
            f"{file} cannot be written: {why}; give another place with --file"
        ) from error


def _replace(path: Path, text: str) -> None:
    # Beside it first: a browser that shows the last report must not reload half a page.
    part = path.with_name(f".{path.name}.tmp")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
