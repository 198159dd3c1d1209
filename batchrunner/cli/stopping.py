"""Handles signals while a session runs, and ends the process in time, even if a call hangs.

There are three stages, each for when the one before it fails. The session stops by itself. A thread of
this process ends it by force (`Watch`). A second, small process kills it (`Watchdog`), since no thread
runs while a call, such as a runaway regular expression, holds the interpreter's lock.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from batchrunner.cli.terminal import say
from batchrunner.driver.report import STOP_CODES
from batchrunner.driver.session import HURRY_SECONDS, Stop, StopReason
from batchrunner.views.own_stderr import own_stderr

_REASONS = {signal.SIGINT: StopReason.INTERRUPTED, signal.SIGTERM: StopReason.TERMINATED}
_FORCED = frozenset(
    {*_REASONS.values(), StopReason.MAX_RUNTIME, StopReason.MAX_COST, StopReason.NO_COST}
)
_POLL_SECONDS = 0.1
_exit = os._exit  # as it is now: the local engine replaces it while the user's code runs
_MARGIN_SECONDS = 4.5
"""How much later than the watch the watchdog acts, since the watch may be slow on a busy machine.
Kubernetes kills 30 s after SIGTERM."""

_LAST_ACT_SECONDS = 0.75


class Watch:
    """Passes signals on to a `Stop`, and ends the process when its grace period is over.

    The first signal requests the stop; the next one, to drop the shards in flight. Neither raises in
    the main thread: an exception at any line would leave no report, and a call that hangs would never
    get it. The session should end by itself, in time; if it does not, a thread ends the process.
    """

    def __init__(self, stop: Stop, *, forced_text: Callable[[], str], killed_text: str) -> None:
        """Prepare the watch, which starts with the `with` block.

        Args:
            stop: Receives the requests of signals.
            forced_text: Returns how far the run is, to print in place of a report at a forced end.
            killed_text: Printed by the watchdog when it has killed this process; `@AT@` in it becomes
                the time.
        """
        self._watchdog: Watchdog
        self._killed_text = killed_text
        self._stop, self._forced_text = stop, forced_text
        self._stderr, self._terminal = sys.stderr, own_stderr()
        self._before: dict[int, Any] = {}
        self._announced, self._announcing = 0, threading.Lock()
        self._code: int | None = None
        self._is_over = threading.Event()
        atexit.register(self._end_at_exit)  # registered before Ray's hook: called after it

    def __enter__(self) -> Self:
        sys.stderr = self._terminal
        stop = self._stop
        self._watchdog = Watchdog(
            grace=stop.grace.force + _MARGIN_SECONDS,
            hurry=HURRY_SECONDS + _MARGIN_SECONDS,
            max_runtime=stop.max_runtime,
            text=self._killed_text,
        )
        self._before = {number: signal.signal(number, self._handle) for number in _REASONS}
        threading.Thread(target=self._watch, daemon=True, name="watch").start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._code is None:
            self._code = getattr(error, "exit_code", 1)
        if self._stop.reason in _FORCED:  # watch to the end of the process: Ray's exit may hang
            return
        self._is_over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._watchdog.end()
        sys.stderr = self._stderr
        # A session that an error ends while Ray starts leaves descriptor 2 redirected: what is printed
        # next, the error above all, would be lost.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(self._terminal.fileno(), self._stderr.fileno())

    def ends_with(self, code: int) -> None:
        """Set the exit *code* of the report printed next; a forced end then prints no text."""
        self._announce()
        self._code = code

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._stop.is_from_outside:
            self._stop.hurry()
        self._stop.request(_REASONS[signal.Signals(number)])

    def _watch(self) -> None:
        while not self._is_over.wait(_POLL_SECONDS):
            if self._announced < self._stop.is_from_outside + self._stop.is_hurried:
                # In a thread: a reader of the pipe may hang, and this one has to end the process.
                threading.Thread(target=self._announce, daemon=True).start()
            if self._stop.is_overdue and self._stop.reason in _FORCED:
                self._force()

    def _announce(self) -> None:
        """Print what a signal requested. Not in its handler, which may interrupt another print."""
        drain = f"for up to {self._stop.grace.drain:.3g} s"
        lines = (
            f"stopping: the shards in flight are finished first, {drain}; once more drops them",
            "dropping the shards in flight",
        )
        requested = (self._stop.is_from_outside, self._stop.is_hurried)
        for number, (line, is_requested) in enumerate(zip(lines, requested, strict=True), start=1):
            with self._announcing:  # of two threads, one prints the line
                is_news = is_requested and self._announced < number
                if is_news:
                    self._announced = number
            if is_news and self._code is None:
                say(line)

    def _force(self) -> None:
        """End the process: first release what other drivers wait for, then print, then exit."""
        last_act = threading.Thread(target=self._stop.last_act, daemon=True)
        last_act.start()
        last_act.join(_LAST_ACT_SECONDS)
        code = self._code
        if code is None:
            code = STOP_CODES[self._stop.reason or StopReason.TERMINATED]
            text = f"{self._forced_text()}\n".encode(errors="replace")
            # In a thread, past every buffer and lock: the reader of the pipe may hang as well.
            threading.Thread(target=self._write, args=(text,), daemon=True).start()
            time.sleep(_POLL_SECONDS)
        kill_descendants()
        _exit(code)

    def _end_at_exit(self) -> None:
        """Kill the processes of a Ray that was still starting, and end this process at once.

        A thread that is still in a call may crash while the interpreter shuts down, and a crash has
        an exit code of its own.
        """
        if self._is_over.is_set() or self._code is None:
            return
        kill_descendants()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        _exit(self._code)

    def _write(self, text: bytes) -> None:
        os.write(self._terminal.fileno(), text)


def kill_descendants() -> None:
    """Kill all descendants of this process: Ray's agents would outlive it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    todo = [os.getpid()]
    while todo:
        started = children.get(todo.pop(), [])
        todo += started
        for pid in started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


_PROGRAM = """
import os, select, signal, sys, time
driver, grace, hurry, runtime, text = int(sys.argv[1]), *map(float, sys.argv[2:5]), sys.argv[5]
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
end, stops = time.monotonic() + runtime + grace, 0
while time.monotonic() < end:
    if os.getppid() != driver:  # a fork of it may hold the pipe open
        sys.exit()
    if not select.select([0], [], [], max(0, min(end - time.monotonic(), 5)))[0]:
        continue
    number = os.read(0, 1)
    if not number:  # the driver is gone
        sys.exit()
    if number[0] in (signal.SIGINT, signal.SIGTERM):
        stops += 1
        end = min(end, time.monotonic() + (grace if stops == 1 else hurry))
if os.getppid() == driver:
    os.kill(driver, signal.SIGKILL)
    os.write(2, text.replace("@AT@", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())).encode())
"""


class Watchdog:
    """A second process, which kills this one with SIGKILL if a stop has not ended it in time.

    Python writes the number of each signal into a pipe, in C, even while a call holds its lock; the
    second process reads the pipe. It ends with the process that it watches. Nothing that is committed
    is lost. The lease is not released, so a driver on another machine waits until it is stale.
    """

    def __init__(self, *, grace: float, hurry: float, max_runtime: float | None, text: str) -> None:
        """Start the second process. Call it in the main thread, as Python requires for signals.

        Args:
            grace: Seconds from the first signal, or the end of *max_runtime*, to the kill.
            hurry: Seconds from the second signal to the kill.
            max_runtime: Seconds that the session may take; None for any time.
            text: What the second process prints to stderr after the kill.
        """
        ours, self._signals = os.pipe()
        os.set_blocking(self._signals, False)  # a full pipe must not block the signal handler
        never = 10.0**9
        arguments = (
            os.getpid(),
            grace,
            hurry,
            never if max_runtime is None else max_runtime,
            text,
        )
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, arguments)],
            stdin=ours,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C and SIGTERM to the group don't reach it
        )
        os.close(ours)
        self._before = signal.set_wakeup_fd(self._signals, warn_on_full_buffer=False)

    def end(self) -> None:
        """Stop watching. Call it in the main thread."""
        signal.set_wakeup_fd(self._before)
        os.close(self._signals)
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
