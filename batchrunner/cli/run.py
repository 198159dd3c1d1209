"""`batchrunner run`: runs a spec, or resumes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from batchrunner.cli.options import spec_options
from batchrunner.cli.trial import trial_of, trial_options


def report_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `-o` to a command that ends with a report."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print the report: json goes to stdout.",
    )(command)


def progress_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--progress` to a command that runs a session."""
    return click.option(
        "--progress",
        type=click.Choice(["auto", "live", "plain", "json", "off"]),
        default="auto",
        show_default=True,
        help="How to show progress, on stderr: auto is the live view on a terminal, else plain lines; "
        "json makes each line of stderr a JSON object.",
    )(command)


@click.command("run")
@click.argument("spec", type=click.Path(dir_okay=False))
@spec_options
@trial_options
@click.option("--fresh", is_flag=True, help="Remove this run's output and start over.")
@click.option(
    "--accept-changes",
    is_flag=True,
    help="Go on although the spec, the code or the source changed; recorded with your user name.",
)
@progress_option
@report_option
def command(
    spec: str, fresh: bool, accept_changes: bool, output: str, progress: str, **trial: Any
) -> int:
    """Run SPEC, or go on with it: what is committed already stays as it is.

    Ctrl-C finishes the shards in flight, within execution.grace_period; a second one drops them.
    Either way the same command goes on later.
    """
    from batchrunner.cli.session import run_session

    return run_session(
        spec,
        lambda runner, **how: runner.run(fresh=fresh, accept_changes=accept_changes, **how),
        output=output,
        progress=progress,
        trial=trial_of(**trial),
    )
