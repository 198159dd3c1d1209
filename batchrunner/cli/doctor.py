"""`batchrunner doctor`: checks what a run needs, and says what to do about what is missing."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import click

from batchrunner.cli.options import load_spec, spec_options, spec_words
from batchrunner.cli.run import report_option
from batchrunner.cli.terminal import columns, on_one_line, put, say, show, show_marked

if TYPE_CHECKING:
    from batchrunner.doctor.results import CheckResult

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_CANNOT_START = 3
_INDENT, _LEAST_ROOM = 24, 20


@click.command("doctor")
@click.argument("spec", required=False, type=click.Path(dir_okay=False))
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long each check may take; all run side by side.",
)
@spec_options
@report_option
def command(spec: str | None, timeout: float, output: str) -> int:
    """Check this machine, and with SPEC its capability, storage and Ray: a line for each.

    It leaves nothing behind, and prints no value of a secret or of a variable. Exits with 3 if
    something would stop a run.
    """
    from batchrunner.doctor.checklist import examine

    found = []
    load = None if spec is None else partial(load_spec, spec)
    for finding in examine(load, seconds=timeout):
        found.append(finding)
        if output == "table":
            _print(finding)
    counts = Counter(str(finding.status) for finding in found)
    if output == "json":
        put(json.dumps({"version": 1, "checks": [one.to_dict() for one in found]}, indent=2) + "\n")
    say(_summary(counts, spec))
    return _CANNOT_START if counts["fail"] else 0


def _summary(counts: Counter[str], spec: str | None) -> str:
    text = f"{counts['ok']} ok, {counts['warn']} warn, {counts['fail']} fail"
    if counts["fail"]:
        again = f"batchrunner doctor {spec_words(spec)}" if spec else "batchrunner doctor"
        return f"{text}: a run would stop\nnext: mend what fails, as its line says, then {again}"
    return f"{text}\nnext: batchrunner run {spec_words(spec)}" if spec else text


def _print(finding: CheckResult) -> None:
    way_out = [f"-> {finding.way_out}"] if finding.way_out else []
    said = [*(finding.fact.splitlines() or [""]), *way_out]
    first, *others = [line for text in said for line in _wrapped(on_one_line(text))]
    text = f"  {finding.check:<16}  {first}"
    show_marked(f"{finding.status:<4}", text, colour=_COLOURS[finding.status])
    # Indented, so that a line break in a fact cannot look like another finding.
    for line in others:
        show(" " * _INDENT + line)


def _wrapped(text: str) -> list[str]:
    """Return *text* as the lines that a terminal has room for, broken between words only."""
    width = columns()
    if width is None:
        return [text]
    room = max(width - _INDENT, _LEAST_ROOM)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
