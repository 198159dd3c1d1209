"""`batchrunner`: calls a command, and turns the error that it raises into message and exit code."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, TextIO

import click

from batchrunner import __version__
from batchrunner.cli.completion import with_spec_completion
from batchrunner.cli.ending import exit_with
from batchrunner.cli.options import spec_words, specs_in
from batchrunner.cli.standard_streams import begin_streams, end_streams
from batchrunner.cli.terminal import harmless, say, say_error
from batchrunner.cli.verbosity import Verbosity, verbose_option, with_verbose
from batchrunner.errors import BatchRunnerError, describe
from batchrunner.views.json_events import log_fields, meaning

_COMMANDS = {
    "init": "Make a folder with a spec, a capability and data, to begin with.",
    "doctor": "Check what a run needs: machine, Ray, capability, storage.",
    "run": "Run a spec, or resume it.",
    "plan": "List what a run would do and why; start nothing.",
    "validate": "Check a spec; touch nothing.",
    "errors": "List what failed, and why.",
    "logs": "Print what the workers printed and logged.",
    "retry": "Retry what failed.",
    "status": "Show how far a run is, from its checkpoint alone.",
    "verify": "Check every byte and row of the output; --repair moves damage away.",
    "report": "Make one HTML file that shows what happened in a run.",
    "clean": "List or remove the garbage of dead processes.",
    "runs": "List, show, compare and query recorded runs.",
    "jobs": "Run batches as jobs of a cluster; list, follow and cancel jobs.",
    "show": "Print a spec as it is read, and where each value is from.",
    "schema": "Print the JSON Schema of specs.",
    "completion": "Print the completion of commands and specs for a shell.",
}


class _RedactingFormatter(logging.Formatter):
    """Removes secrets and control characters: libraries log what they are given."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(_without_secrets(super().format(record)))


class _CurrentStderrHandler(logging.Handler):
    """Writes to the current `sys.stderr`: a progress bar replaces it to keep lines above itself."""

    @property
    def stream(self) -> TextIO:
        """The current stderr, where lines go."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            with meaning("log", **log_fields(record, text)):
                say(text)
        except Exception:  # noqa: BLE001 - as in the standard handlers: logging must not end the run
            self.handleError(record)


class _LazyGroup(click.Group):
    """Imports a command only when it is called, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        command = with_verbose(import_module(f"batchrunner.cli.{cmd_name}").command)
        return with_spec_completion(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0].endswith((".yaml", ".yml")):  # as with `make` or `docker compose`: no verb
                ctx.fail(
                    f"No such command {args[0]!r}. To run that spec: batchrunner run {shlex.quote(args[0])}"
                )
            if near := _nearest(args[0]):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near!r}?")
            raise error  # noqa: TRY201 - a bare `raise` would have the failure above as its context

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="batchrunner")
@verbose_option
def batchrunner() -> None:
    """Map a capability over millions of rows: every row exactly once, whatever is killed.

    \b
    Exit codes: 0 done · 1 shards failed, or internal error · 2 bad command line or spec ·
    3 cannot start · 4 refused, nothing touched · 5 verify found a defect ·
    75 stopped with work left · 130 Ctrl-C · 143 SIGTERM
    """  # noqa: D301 - click wants the character
    handler = _CurrentStderrHandler()
    handler.setFormatter(_RedactingFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])


def main() -> NoReturn:
    """Run the command line and exit."""
    begin_streams()
    try:
        here = os.getcwd()  # noqa: PTH109 - a string
    except FileNotFoundError:
        say_error("the current folder was removed: change to one that exists, with cd")
        sys.exit(2)
    # As `python -m` does, so that a capability in the current folder can be imported.
    if here not in sys.path:
        sys.path.insert(0, here)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file name may hold bytes that are no text
        sys.stdout.reconfigure(errors="backslashreplace")
    code = _run(sys.argv[1:])
    end_streams()
    exit_with(code)


def _run(arguments: list[str]) -> int:
    verbosity = Verbosity()
    try:
        return int(batchrunner.main(arguments, standalone_mode=False, obj=verbosity) or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        _show_refusal(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - the user gets one line, not a traceback
        return _fail(error, with_traceback=verbosity.verbose, arguments=arguments)


def _nearest(name: str) -> str | None:
    import difflib  # slow to import, and only a typo needs it

    return next(iter(difflib.get_close_matches(name, _COMMANDS, n=1)), None)


def _show_refusal(error: click.ClickException) -> None:
    """Print a problem of the command line, escaped, since it may quote the content of a file."""
    shown = io.StringIO()
    error.show(file=shown)
    say(shown.getvalue(), end="")


def _fail(error: Exception, *, with_traceback: bool, arguments: Sequence[str]) -> int:
    code, message = _said(error, arguments)
    details = _without_secrets("".join(traceback.format_exception(error))) if with_traceback else ""
    kind = type(error).__name__
    with meaning("error", type=kind, message=message, exit_code=code, traceback=details):
        say(details, end="")
        say_error(message)
    return code


def _said(error: Exception, arguments: Sequence[str]) -> tuple[int, str]:
    """Return the exit code and the message of *error*."""
    if isinstance(error, BatchRunnerError):
        return error.exit_code, _with_spec(_without_secrets(str(error)), arguments)
    what = _without_secrets(describe(error))
    return 1, f"internal error: {what}; run again with -v to see where"


def _with_spec(text: str, arguments: Sequence[str]) -> str:
    """Return *text* with this command line's spec in place of `SPEC`, so that it can be pasted."""
    specs = specs_in(arguments)
    return (
        re.sub(r"(?<= )SPEC\b", lambda _: spec_words(specs[0], arguments), text) if specs else text
    )


def _without_secrets(text: str) -> str:
    from batchrunner.spec.secrets import scrubbed

    return scrubbed(text)
