"""`batchrunner plan`: lists what a run would do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import load_spec, retry_line, spec_options, spec_words
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say
from batchrunner.cli.trial import trial_of, trial_options

if TYPE_CHECKING:
    from batchrunner.driver.survey import Survey
    from batchrunner.runner import BatchRunner
    from batchrunner.shard import Shard


@click.command("plan")
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@trial_options
@click.option("--accept-changes", is_flag=True, help="Plan as `run --accept-changes` would.")
@output_option
def command(spec: str, accept_changes: bool, output: str, **trial: Any) -> None:
    """List the shards that `run SPEC` would process, and why. Writes and starts nothing."""
    runner = trial_of(**trial).runner(load_spec(spec))
    survey = runner.plan(accept_changes=accept_changes)
    records = [
        {
            "shard": shard.id,
            "source": _source(shard) if output == "table" else shard.first.uri,
            **dict(zip(("slicing", "start", "stop"), shard.extent, strict=True)),
            "why": survey.why(shard),
        }
        for shard in survey.pending
    ]
    print_records(records, output, first_to_go=("slicing", "stop", "start"))
    whole = len(survey.plan.active)
    unadopted = len(survey.output.unadopted)
    to_adopt = f", {unadopted:,} to adopt" if unadopted else ""
    say(
        f"{len(survey.pending):,} of {whole:,} shards to run, "
        f"{len(survey.output.committed):,} committed{to_adopt}"
    )
    if survey.pending and (least := _least_time(runner, survey)):
        say(least)
    if journaled := _journaled(runner, survey):
        say(f"the journal has answers for {journaled:,} rows of these")
    if survey.quarantined:
        say(_quarantined(survey, spec_words(spec)))
    for note in survey.notes:
        say(note)
    for line in survey.accepted:
        say(f"accepted change: {line}")


def _journaled(runner: BatchRunner, survey: Survey) -> int:
    from batchrunner.checkpoint.answers import journaled_rows
    from batchrunner.checkpoint.location import RunLocation

    if survey.record is None or survey.starts_over or not runner.spec.execution.journal_answers:
        return 0
    records, pending = (
        RunLocation.of(runner.spec).checkpoint.records,
        {s.id for s in survey.pending},
    )
    return journaled_rows(records, survey.record.run_uid, pending=pending)


def _least_time(runner: BatchRunner, survey: Survey) -> str:
    from batchrunner.driver.rate_words import least_time

    return least_time(runner.spec, survey.pending)


def _source(shard: Shard) -> str:
    others = len(shard.slices) - 1
    return f"{shard.first.uri} and {others:,} more" if others else shard.first.uri


def _quarantined(survey: Survey, spec: str) -> str:
    number = len(survey.quarantined)
    has_rows = any(one.rows_failed for one in survey.output.committed.values())
    way_out = retry_line(spec, rows=has_rows)
    return f"{number:,} {'is' if number == 1 else 'are'} quarantined: fix it, then {way_out}"
