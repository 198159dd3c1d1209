"""Runs a session on the command line: signals stop it; progress and report go to stderr."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path

from click.exceptions import Exit

from batchrunner.cli.ending import end_within
from batchrunner.cli.options import load_spec, retry_line, shown_words, spec_words
from batchrunner.cli.session_output import ForPeople, ForPrograms
from batchrunner.cli.stopping import Watch
from batchrunner.cli.terminal import put
from batchrunner.cli.trial import Trial
from batchrunner.driver import report_text
from batchrunner.driver.progress import Progress
from batchrunner.driver.report import STOP_CODES, BatchReport
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import BatchRunnerError, StorageError, describe
from batchrunner.spec import BatchSpec

_NONE = Trial()
_SHOWN_FAILURES = 10
_KILLED = (
    "stopped: a call held the interpreter and could not be broken off, so the process was killed; "
    "committed shards are kept\nnext: {again}"
)


def run_session(
    spec: str,
    session: Callable[..., BatchReport],
    *,
    output: str,
    progress: str,
    trial: Trial = _NONE,
) -> int:
    """Call *session* with a runner of *spec*, print its report and return its exit code.

    Signals stop the session, and its process ends in time even if a call hangs.
    """
    # Before Ray is imported: it would handle SIGTERM itself, and die of it.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    front = ForPrograms() if progress == "json" else ForPeople(progress)
    real = load_spec(spec)
    runner = trial.runner(real)
    if not trial:  # whose report names its own sink
        runner.started_with = {"spec": spec_words(spec), "folder": str(Path.cwd())}
    loaded = runner.spec
    if loaded.execution.engine == "ray":
        # Once this session has ended Ray, a thread still in a call would start another.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    stop, put_stdout_back = Stop.of(loaded), _stdout_kept()
    end_within(stop.grace.seconds, as_json=progress == "json")
    watch = Watch(
        stop,
        forced_text=lambda: front.forced_text(
            _text_of_forced_end(stop, loaded, front.progress),
            exit_code=STOP_CODES[stop.reason or StopReason.TERMINATED],
        ),
        killed_text=front.killed_text(_KILLED.format(again=_again())),
    )
    with watch, front.streams():
        # Programs parse the report, so what a capability prints must not mix with it.
        printed = redirect_stdout(sys.stderr) if output == "json" else nullcontext()
        with closing(front.begin()), printed, _no_exit():
            report = session(runner, stop=stop, progress=front)
        watch.ends_with(report.exit_code)
        if output == "json":
            put_stdout_back()
            with suppress(Exit):  # its reader has ended; the exit code still says how it went
                put(json.dumps(report.to_dict()) + "\n")
        words = trial.words(spec, real=real, sink=report.sink)
        text = _text_of(
            report, spec=words, is_trial=bool(trial), is_logged=_has_logs(report, loaded)
        )
        lines = [text, *trial.ending(spec)]
        front.end(report, "\n".join(lines))
    return report.exit_code


def _stdout_kept() -> Callable[[], None]:
    """Return what puts stdout's descriptor back as it is now: code of the run may close it."""
    try:
        descriptor = sys.stdout.fileno()
        copy = os.dup(descriptor)
    except (OSError, ValueError, AttributeError):  # not a file, or there is none
        return lambda: None

    def put_back() -> None:
        with suppress(OSError):
            os.dup2(copy, descriptor)

    return put_back


@contextmanager
def _no_exit() -> Iterator[None]:
    """Turn a `sys.exit` of the user's code into an error: code 0 would mean a complete run."""
    try:
        yield
    except SystemExit as error:
        raise BatchRunnerError(
            f"code of the capability ended the session ({describe(error)}); committed shards are kept. "
            "Remove that exit (-v shows where), then run the same line again"
        ) from error


def _text_of_forced_end(stop: Stop, spec: BatchSpec, progress: Progress | None) -> str:
    """Return the text that replaces the report when the session is ended by force."""
    if progress is None:
        return f"stopped ({stop.reason}): nothing was begun\nnext: {_again()}"
    lines = [
        f"stopped ({stop.reason}): {progress.committed:,} of {progress.shards:,} shards committed",
        "what did not end in time was broken off; nothing that is committed is lost",
        f"output: {spec.sink.uri}",
        f"next: {_again()}",
    ]
    return "\n".join(lines)


def _has_logs(report: BatchReport, spec: BatchSpec) -> bool:
    """Return whether there is something to read in the logs of a run in which something failed."""
    from batchrunner.checkpoint.location import checkpoint_storage
    from batchrunner.views.logs import has_logs

    if not (report.rows_failed or report.failures):
        return False
    try:
        return has_logs(checkpoint_storage(spec))
    except StorageError:  # `logs` says what is wrong with it
        return True


def _text_of(report: BatchReport, *, spec: str, is_trial: bool, is_logged: bool) -> str:
    """Return *report* as text, with the next command; *spec* and its options are ready to paste."""
    lines = [
        report_text.heading(report),
        f"rows: {report_text.rows(report)}",
        *([f"usage: {report_text.usage(report.spent, report.usage)}"] if report.spent else []),
        *([f"speed: {report.advice}"] if report.advice else []),
        f"output: {report.sink}",
        *_failures(report),
        *_traceback(report),
        *_next(report, spec=spec, is_trial=is_trial, is_logged=is_logged),
    ]
    return "\n".join(lines)


def _failures(report: BatchReport) -> list[str]:
    reasons = {**report.quarantined, **{i: f.reason for i, f in report.failures.items()}}
    lines = [f"failed: {reason}" for reason in list(reasons.values())[:_SHOWN_FAILURES]]
    if len(reasons) > _SHOWN_FAILURES:
        lines.append(f"and {len(reasons) - _SHOWN_FAILURES:,} more shards failed")
    if not report.within_budget:
        lines.append(
            f"too many rows failed: {report.rows_failed:,} of {report.rows_in:,}, where "
            f"errors.max_row_errors allows {report.rows_allowed:,}"
            f"{': ' if report.row_error else ''}{report.row_error}"
        )
    return lines


def _traceback(report: BatchReport) -> list[str]:
    """Return, with `-v`, the first traceback of the user's code among the failures."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return []
    texts = [*(failure.traceback for failure in report.failures.values()), report.row_traceback]
    return [text.rstrip() for text in texts if text][:1]


def _next(report: BatchReport, *, spec: str, is_trial: bool, is_logged: bool) -> list[str]:
    has_rows = report.rows_failed or any(f.traceback for f in report.failures.values())
    lines = [f"see the rows that failed: batchrunner errors {spec}"] if has_rows else []
    if is_logged:
        lines.append(f"what the workers printed and logged: batchrunner logs {spec}")
    if is_trial:
        return lines if report.ok else [*lines, f"next: fix it, then {_again()}"]
    if report.stopped is StopReason.ROW_ERRORS or not report.within_budget:
        lines.append(
            f"next: fix it, then {retry_line(spec, rows=True)}; or raise errors.max_row_errors, "
            f"then batchrunner run {spec}"
        )
    elif limit := report_text.over_cost(report):
        lines.append(f"next: {limit}; then {_again()}")
    elif report.quarantined:
        lines.append(f"next: fix it, then {retry_line(spec, rows=bool(report.rows_failed))}")
    elif not report.ok:
        lines.append(f"next: {'fix it, then ' if report.failures else ''}{_again()}")
    return lines


def _again() -> str:
    """Return this command line without `--fresh`, which would start over instead of continuing."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    return shlex.join(["batchrunner", *shown_words(arguments)])
