"""`batchrunner retry`: runs again what failed, after a fix."""

from __future__ import annotations

import click

from batchrunner.cli.options import spec_options
from batchrunner.cli.run import progress_option, report_option


@click.command("retry")
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@click.option("--rows", is_flag=True, help="Also the dead letters: they become new shards.")
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although the spec or the source changed; recorded with your user name.",
)
@progress_option
@report_option
def command(spec: str, rows: bool, accept_changes: bool, output: str, progress: str) -> int:
    """Run again what failed of SPEC, after a fix; published parts stay as they are.

    The quarantined shards are run again, and whatever else is not committed. A capability whose code
    changed is taken for the fixed one.
    """
    from batchrunner.cli.session import run_session

    return run_session(
        spec,
        lambda runner, **how: runner.retry(rows=rows, accept_changes=accept_changes, **how),
        output=output,
        progress=progress,
    )
