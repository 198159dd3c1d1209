"""A session under signals: what it shows while it runs, and what it says at its end."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout

from batchrunner.cli.stopping import Watch
from batchrunner.cli.terminal import put, say
from batchrunner.driver.progress import (
    BarProgress,
    LineProgress,
    NoProgress,
    Progress,
    Standing,
    duration,
)
from batchrunner.driver.report import BatchReport
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import BatchRunnerError, describe
from batchrunner.runner import BatchRunner
from batchrunner.spec import BatchSpec
from batchrunner.worker.stopping import Grace

_SHOWN_FAILURES = 10
_HELD = (
    "\nstopped: a call held the interpreter and could not be broken off, so the process was killed; "
    "committed shards are kept\nnext: {again}\n"
)


def drive(spec: str, session: Callable[..., BatchReport], *, output: str) -> int:
    """Have a session of *spec* with signals, progress and a report; return the exit code."""
    # Ray reads it when it is imported, or else takes SIGTERM for itself and dies of it.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    loaded = BatchSpec.from_yaml(spec)
    if loaded.execution.engine == "ray":
        # A thread that is left behind in Ray would start another one when this one has ended.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    execution = loaded.execution
    stop = Stop(max_runtime=execution.max_runtime, grace=Grace(execution.grace_period))
    seen = _Seen()
    watch = Watch(
        stop,
        last_words=lambda: _last_words(stop, loaded, seen.standing),
        held_words=_HELD.format(again=_again()),
    )
    with watch:
        # What a capability prints must not be in a report that a program reads.
        printed = redirect_stdout(sys.stderr) if output == "json" else nullcontext()
        with closing(_progress()) as seen.progress, printed, _no_exit():
            report = session(BatchRunner(loaded), stop=stop, progress=seen)
        watch.ends_with(report.exit_code)
        if output == "json":
            put(json.dumps(report.to_dict()) + "\n")
        _tell(report, spec=spec)
    return report.exit_code


@contextmanager
def _no_exit() -> Iterator[None]:
    """Keep `sys.exit` of the user's code from choosing our exit code: with 0, nothing is done."""
    try:
        yield
    except SystemExit as error:
        raise BatchRunnerError(
            f"code of the capability ended the session ({describe(error)}); "
            "committed shards are kept, -v shows where"
        ) from error


def _progress() -> Progress:
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class _Seen:
    """Shows progress, and remembers the last of it."""

    def __init__(self) -> None:
        self.progress: Progress = NoProgress()
        self.standing: Standing | None = None

    def show(self, standing: Standing) -> None:
        self.standing = standing
        self.progress.show(standing)

    def close(self) -> None:
        """Nothing: who made the progress closes it."""


def _last_words(stop: Stop, spec: BatchSpec, standing: Standing | None) -> str:
    """Tell how far a session is that does not end by itself."""
    if standing is None:
        return f"stopped ({stop.reason}): nothing was begun\nnext: {_again()}"
    lines = [
        f"stopped ({stop.reason}): {standing.committed:,} of {standing.shards:,} shards committed",
        "what did not end in time was broken off; nothing that is committed is lost",
        f"output: {spec.sink.uri}",
        f"next: {_again()}",
    ]
    return "\n".join(lines)


def _tell(report: BatchReport, *, spec: str) -> None:
    """Tell people how it went, and what to do next."""
    state = "done" if report.ok else f"stopped ({report.stopped})" if report.stopped else "failed"
    shards = f"{report.shards_committed:,} of {report.shards:,} shards committed"
    lines = [
        f"{state}: {shards} ({report.shards_new:,} new, {duration(report.seconds)})",
        f"rows: {report.rows_in:,} in, {report.rows_out:,} out, {report.rows_failed:,} set aside",
        f"output: {report.sink}",
        *_failures(report),
        *_traceback(report),
        *_next(report, spec=shlex.quote(spec)),
    ]
    say("\n".join(lines))


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
    """Return the user's own frames of the first failure that has any, for `-v`."""
    told = [*(failure.traceback for failure in report.failures.values()), report.row_traceback]
    is_verbose = logging.getLogger().isEnabledFor(logging.INFO)
    return [text.rstrip() for text in told if text][: int(is_verbose)]


def _next(report: BatchReport, *, spec: str) -> list[str]:
    has_rows = report.rows_failed or any(f.traceback for f in report.failures.values())
    lines = [f"see the rows that failed: batchrunner errors {spec}"] if has_rows else []
    if has_rows or report.failures:
        lines.append(f"what the workers printed and logged: batchrunner logs {spec}")
    if report.stopped is StopReason.ROW_ERRORS or not report.within_budget:
        lines.append(
            f"next: fix it, then batchrunner retry --rows {spec}; or raise errors.max_row_errors, "
            f"then batchrunner run {spec}"
        )
    elif report.quarantined:
        lines.append(f"next: fix it, then batchrunner retry {spec}")
    elif not report.ok:
        lines.append(f"next: {'fix it, then ' if report.failures else ''}{_again()}")
    return lines


def _again() -> str:
    """Return the command that goes on."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    return shlex.join(["batchrunner", *arguments])
