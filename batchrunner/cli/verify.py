"""`batchrunner verify`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say, say_in_place

if TYPE_CHECKING:
    from batchrunner.verify import Checks, Repair, Verification

DEFECT = 5


@click.command("verify")
@click.argument("spec", type=click.Path(dir_okay=False))
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Move what is damaged to _damaged/, so that `run` makes it again.",
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
def command(spec: str, mend: bool, keys: tuple[str, ...], replay: float | None, output: str) -> int:
    """Hold the output of SPEC against its records and its source, every byte of it.

    Lists what is wrong, and ends with 5 if there is anything, or if --key or --replay could not look
    at a committed shard. Shards that are not committed yet are no defect.
    """
    from batchrunner.spec import BatchSpec
    from batchrunner.verify import Checks, repair, verify

    loaded = BatchSpec.from_yaml(spec)
    checks = Checks(keys=keys, replay=replay)
    done = repair(loaded, checks=checks, watch=_watch) if mend else None
    found = done.found if done else verify(loaded, checks=checks, watch=_watch)
    print_records([finding.to_dict() for finding in found.findings], output)
    lines = [
        _counts(found),
        *found.notes,
        *_next(found, done, again=_again(checks), spec=shlex.quote(spec)),
    ]
    say("\n".join(lines))
    return 0 if found.ok else DEFECT


def _watch(done: int, shards: int) -> None:
    say_in_place(f"{done:,} of {shards:,} shards", last=done == shards)


def _counts(found: Verification) -> str:
    state = f"{len(found.findings):,} defects" if found.findings else "incomplete"
    if found.left_out:
        some = f"{found.left_out:,} of {found.committed:,} committed shards"
        state = f"{state}, {some} could not be compared"
    state = "ok" if found.ok else state
    return (
        f"{state}: {found.committed:,} of {found.shards:,} shards committed; rows: "
        f"{found.rows_in:,} in, {found.rows_out:,} out, {found.rows_failed:,} set aside"
    )


def _again(checks: Checks) -> str:
    """Return the options that find the same again."""
    options = [f"--key {shlex.quote(key)} " for key in checks.keys]
    return "".join([*options, f"--replay {checks.replay:g} " if checks.replay else ""])


def _next(found: Verification, done: Repair | None, *, again: str, spec: str) -> list[str]:
    if found.ok:
        return []
    if not found.findings:
        return [f"next: batchrunner run {spec}"]
    if done is None and not found.is_lost:
        return [f"next: batchrunner verify --repair {again}{spec}"]
    if done is None:
        why = "nothing can make the run's record again: bring it back, or start over, which moves the "
        return [f"{why}parts to _damaged/", f"next: batchrunner run --fresh {spec}"]
    lines = [
        f"moved to _damaged/: {len(done.moved):,} objects; {len(done.redone):,} shards to make again"
    ]
    if done.rebuilt:
        lines.append(f"made again from the rest: {', '.join(done.rebuilt)}")
    if done.hopeless:
        why = (
            f"{len(done.hopeless):,} defects cannot be repaired: bring the records back, or start "
            "over, which moves the parts to _damaged/ if the records that vouch for them are damaged"
        )
        return [*lines, why, f"next: batchrunner run --fresh {spec}"]
    return [*lines, f"next: batchrunner run {spec}"]
