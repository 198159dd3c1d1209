"""`batchrunner verify`: checks the output of a run, or repairs it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from batchrunner.cli.options import load_spec, spec_options, spec_words
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say, say_in_place

if TYPE_CHECKING:
    from batchrunner.verify import Checks, Repair, Verification

DEFECT = 5


@click.command("verify")
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@click.option(
    "--repair",
    "repairs",
    is_flag=True,
    help="Move what is damaged to _damaged/, so that `run` computes it again.",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="COLUMN",
    help="Compare the keys of source and output: none missing, none doubled. Several name a row "
    "together. For capabilities that keep each row and its key; needs DuckDB.",
)
@click.option(
    "--replay",
    type=click.FloatRange(min=0, max=1, min_open=True),
    metavar="SHARE",
    help="Run the capability again over this share of the shards, such as 0.01, and compare the "
    "rows. For capabilities that say `deterministic: true`.",
)
@output_option
def command(
    spec: str, repairs: bool, keys: tuple[str, ...], replay: float | None, output: str
) -> int:
    """Check the output of SPEC, every byte of it, against its checkpoint and its source.

    Lists the defects. The exit code is 5 if there are any, or if --key or --replay could not compare
    a committed shard. Shards that are not committed yet are no defect.
    """
    from batchrunner.verify import Checks, repair, verify

    loaded = load_spec(spec)
    checks = Checks(keys=keys, replay=replay)
    repaired = repair(loaded, checks=checks, watch=_watch) if repairs else None
    result = repaired.found if repaired else verify(loaded, checks=checks, watch=_watch)
    print_records([finding.to_dict() for finding in result.findings], output)
    lines = [
        _counts(result),
        *result.notes,
        *_next_steps(result, repaired, options=_options(checks), spec=spec_words(spec)),
    ]
    say("\n".join(lines))
    return 0 if result.ok else DEFECT


def _watch(done: int, shards: int) -> None:
    say_in_place(f"{done:,} of {shards:,} shards", last=done == shards)


def _counts(result: Verification) -> str:
    state = f"{len(result.findings):,} defects" if result.findings else "incomplete"
    if result.left_out:
        some = f"{result.left_out:,} of {result.committed:,} committed shards"
        state = f"{state}, {some} could not be compared"
    state = "ok" if result.ok else state
    return (
        f"{state}: {result.committed:,} of {result.shards:,} shards committed; rows: "
        f"{result.rows_in:,} in, {result.rows_out:,} out, {result.rows_failed:,} failed"
    )


def _options(checks: Checks) -> str:
    """Return *checks* as options: a repair without them would miss their findings."""
    options = [f"--key {shlex.quote(key)} " for key in checks.keys]
    return "".join([*options, f"--replay {checks.replay:g} " if checks.replay else ""])


def _next_steps(
    result: Verification, repaired: Repair | None, *, options: str, spec: str
) -> list[str]:
    if result.ok or result.trial:
        again = f"next: make the trial again: batchrunner run {result.trial} SPEC"
        return [] if result.ok else [again]
    if not result.findings:
        return [f"next: batchrunner run {spec}"]
    if repaired is None and not result.is_lost:
        return [f"next: batchrunner verify --repair {options}{spec}"]
    if repaired is None:
        why = (
            "nothing can rebuild the run's document: restore it from a copy, or start over, which "
        )
        return [f"{why}moves the parts to _damaged/", f"next: batchrunner run --fresh {spec}"]
    moved = f"moved to _damaged/: {len(repaired.moved):,} objects"
    again = f"{len(repaired.to_recompute):,} shards to compute again"
    lines = [f"{moved if repaired.moved else 'nothing to move'}; {again}"]
    if repaired.rebuilt:
        lines.append(f"rebuilt from other documents: {', '.join(repaired.rebuilt)}")
    if repaired.hopeless:
        why = (
            f"{len(repaired.hopeless):,} defects cannot be repaired: restore the documents from a "
            "copy, or start over, which moves the parts to _damaged/ if the documents that vouch "
            "for them are damaged"
        )
        return [*lines, why, f"next: batchrunner run --fresh {spec}"]
    return [*lines, f"next: batchrunner run {spec}"]
