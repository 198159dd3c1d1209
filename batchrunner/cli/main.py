"""`batchrunner`: finds the command, runs it, and turns what it raises into a message and a code."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import click

from batchrunner import __version__
from batchrunner.errors import BatchRunnerError, describe

_COMMANDS = {
    "run": "Run a spec, or go on with it.",
    "plan": "List what a run would do and why; start nothing.",
    "validate": "Check a spec; touch nothing.",
    "errors": "List what failed, and why.",
    "retry": "Run again what failed.",
    "status": "Tell how far a run is, from its checkpoint alone.",
    "verify": "Check every byte and row of the output; set damage aside.",
    "clean": "List or remove what dead processes left behind.",
    "runs": "List, show, compare and query recorded runs.",
    "jobs": "Run batches as jobs of a cluster, and look after jobs.",
    "schema": "Print the JSON Schema of specs.",
}


class _Scrubbed(logging.Formatter):
    """Libraries log what they were given, secrets and all."""

    def format(self, record: logging.LogRecord) -> str:
        return _without_secrets(super().format(record))


class _ToStderr(logging.Handler):
    """Writes to what is stderr at that moment: while there is a progress bar, to above it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            click.echo(self.format(record), err=True)
        except Exception:  # noqa: BLE001 - as in the standard handlers: logging ends nothing
            self.handleError(record)


class _Commands(click.Group):
    """Imports a command when it is called, so that `--help` needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"batchrunner.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="batchrunner")
@click.option("-v", "--verbose", is_flag=True, help="Show events, and tracebacks of errors.")
def batchrunner(verbose: bool) -> None:
    """Map a capability over millions of rows: every row exactly once, whatever is killed.

    \b
    Exit codes: 0 done · 1 shards failed · 2 bad command line or spec · 3 cannot start ·
    4 refused, nothing touched · 5 verify found a defect · 75 stopped with work left ·
    130 Ctrl-C · 143 SIGTERM
    """  # noqa: D301 - click wants the character
    level = logging.INFO if verbose else logging.WARNING
    handler = _ToStderr()
    handler.setFormatter(_Scrubbed("%(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


def main() -> NoReturn:
    """Run the command line and exit."""
    # As `python -m` does: a capability beside the user is found.
    if os.getcwd() not in sys.path:  # noqa: PTH109 - a string
        sys.path.insert(0, os.getcwd())  # noqa: PTH109 - a string
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    try:
        return int(batchrunner.main(arguments, standalone_mode=False) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - the reader at 3 a.m. gets a line, not a traceback
        return _fail(error, with_traceback=bool({"-v", "--verbose"} & set(arguments)))


def _fail(error: Exception, *, with_traceback: bool) -> int:
    if isinstance(error, BrokenPipeError):  # the reader of stdout left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if with_traceback:
        click.echo(_without_secrets("".join(traceback.format_exception(error))), nl=False, err=True)
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    if isinstance(error, BatchRunnerError):
        click.echo(_without_secrets(str(error)), err=True)
        return error.exit_code
    what = _without_secrets(describe(error))
    click.echo(f"internal error: {what}; run again with -v to see where", err=True)
    return 1


def _without_secrets(text: str) -> str:
    from batchrunner.spec.secrets import scrubbed

    return scrubbed(text)
