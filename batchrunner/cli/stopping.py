"""Signals while a session runs, and the end of the process in time, whatever hangs.

The end of the driver from outside, when none of its own threads can run.

A call that holds the interpreter's lock, such as a regular expression gone wrong, keeps every thread
and every signal handler of its process waiting. What Python still does is to write the number of a
signal into a pipe, in C. A small process reads that pipe.
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
from typing import Any, Self, TextIO

from batchrunner.cli.terminal import say
from batchrunner.driver.report import STOP_CODES
from batchrunner.driver.session import HURRY_SECONDS, Stop, StopReason

_REASONS = {signal.SIGINT: StopReason.INTERRUPTED, signal.SIGTERM: StopReason.TERMINATED}
_FORCED = frozenset({*_REASONS.values(), StopReason.MAX_RUNTIME})
_LOOK_SECONDS = 0.1
_MARGIN_SECONDS = 4.5
"""For the watch to end the process, on a busy machine; Kubernetes kills 30 s after SIGTERM."""

_LAST_ACT_SECONDS = 0.75
_CLEAR_BAR = "\r\x1b[2K\x1b[?25h"


class Watch:
    """Passes signals on to a stop, and ends the process when its grace period is over.

    The first signal is a wish to stop, the next one a wish to drop what is in flight. Neither
    raises in the main thread: an exception out of nowhere has no report, and a call that hangs
    would not see it. The session ends by itself, in time; a thread looks that it does.
    """

    def __init__(self, stop: Stop, *, last_words: Callable[[], str], held_words: str) -> None:
        """Watch over *stop*.

        Args:
            stop: The wish.
            last_words: Says how far the run is, in place of a report.
            held_words: What to say when this process cannot say anything any more.
        """
        self._watchdog: Watchdog
        self._held_words = held_words
        self._stop, self._last_words = stop, last_words
        self._stderr, self._terminal = sys.stderr, _own_stderr()
        self._before: dict[int, Any] = {}
        self._said, self._saying = 0, threading.Lock()
        self._code: int | None = None
        self._is_over = threading.Event()
        atexit.register(self._leave_nothing)  # before Ray's own hook, so that it is called after it

    def __enter__(self) -> Self:
        sys.stderr = self._terminal
        stop = self._stop
        self._watchdog = Watchdog(
            grace=stop.grace.force + _MARGIN_SECONDS,
            hurry=HURRY_SECONDS + _MARGIN_SECONDS,
            max_runtime=stop.max_runtime,
            words=self._held_words,
        )
        self._before = {number: signal.signal(number, self._handle) for number in _REASONS}
        threading.Thread(target=self._watch, daemon=True, name="watch").start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._code is None:
            self._code = getattr(error, "exit_code", 1)
        if self._stop.reason in _FORCED:  # to the end of the process: Ray's end may take its time
            return
        self._is_over.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._watchdog.end()
        sys.stderr = self._stderr

    def ends_with(self, code: int) -> None:
        """Note that there is a report, which is about to be told, and the exit *code* that it has."""
        self._say()
        self._code = code

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._stop.is_from_outside:
            self._stop.hurry()
        self._stop.request(_REASONS[signal.Signals(number)])

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            if self._said < self._stop.is_from_outside + self._stop.is_hurried:
                # In a thread: whoever reads the pipe may hang, and this one has to end the process.
                threading.Thread(target=self._say, daemon=True).start()
            if self._stop.is_overdue and self._stop.reason in _FORCED:
                self._force()

    def _say(self) -> None:
        """Say what a signal has set going; not in its handler, which may interrupt another echo."""
        drain = f"for up to {self._stop.grace.drain:.3g} s"
        lines = (
            f"stopping: the shards in flight are finished first, {drain}; once more drops them",
            "dropping the shards in flight",
        )
        asked = (self._stop.is_from_outside, self._stop.is_hurried)
        for said, (line, is_asked) in enumerate(zip(lines, asked, strict=True), start=1):
            with self._saying:
                is_news, self._said = (
                    is_asked and self._said < said,
                    max(self._said, said * is_asked),
                )
            if is_news and self._code is None:
                say(line)

    def _force(self) -> None:
        """End the process: first what others wait for, then what people read."""
        last_act = threading.Thread(target=self._stop.last_act, daemon=True)
        last_act.start()
        last_act.join(_LAST_ACT_SECONDS)
        code = self._code
        if code is None:
            code = STOP_CODES[self._stop.reason or StopReason.TERMINATED]
            clear = _CLEAR_BAR if self._terminal.isatty() else ""
            words = f"{clear}{self._last_words()}\n".encode(errors="replace")
            # In a thread, past every buffer and lock: whoever reads the pipe may hang as well.
            threading.Thread(target=self._write, args=(words,), daemon=True).start()
            time.sleep(_LOOK_SECONDS)
        _kill_descendants()
        os._exit(code)

    def _leave_nothing(self) -> None:
        """End what a Ray that was only just starting has left behind, and then this process.

        At once: a thread that is still in a call may crash in an interpreter that is taken down,
        and a crash has an exit code of its own.
        """
        if self._is_over.is_set() or self._code is None:
            return
        _kill_descendants()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._code)

    def _write(self, words: bytes) -> None:
        os.write(self._terminal.fileno(), words)


def _kill_descendants() -> None:
    """End what this process has started, and what that has: a Ray's agents outlive it otherwise."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    todo = [os.getpid()]
    while todo:
        found = children.get(todo.pop(), [])
        todo += found
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def _own_stderr() -> TextIO:
    """Return stderr by a descriptor of its own: while Ray starts, descriptor 2 is held back."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # not a file
        return sys.stderr
    # It lasts as long as the process.
    file = os.fdopen(descriptor, "w", encoding=sys.stderr.encoding, errors="backslashreplace")
    file.reconfigure(line_buffering=True)
    return file


_PROGRAM = """
import os, select, signal, sys, time
driver, grace, hurry, runtime, words = int(sys.argv[1]), *map(float, sys.argv[2:5]), sys.argv[5]
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
end, stops = time.monotonic() + runtime + grace, 0
while time.monotonic() < end:
    if os.getppid() != driver:  # a fork of it may hold the pipe open
        sys.exit()
    if not select.select([0], [], [], max(0, min(end - time.monotonic(), 5)))[0]:
        continue
    told = os.read(0, 1)
    if not told:
        sys.exit()
    if told[0] in (signal.SIGINT, signal.SIGTERM):
        stops += 1
        end = min(end, time.monotonic() + (grace if stops == 1 else hurry))
if os.getppid() == driver:
    os.kill(driver, signal.SIGKILL)
    os.write(2, words.encode())
"""


class Watchdog:
    """A process that kills this one, with SIGKILL, when a stop has not ended it in time.

    It ends by itself with this process. Nothing that is committed is lost; the lease is not given
    back, so that a driver on another machine waits until it is seen to stand still.
    """

    def __init__(
        self, *, grace: float, hurry: float, max_runtime: float | None, words: str
    ) -> None:
        """Watch from now on. Call it in the main thread.

        Args:
            grace: Seconds from the first signal, or the end of *max_runtime*, to the end.
            hurry: The same from the second signal.
            max_runtime: Seconds that the session may take; None for any time.
            words: What people are told then.
        """
        ours, self._told = os.pipe()
        os.set_blocking(self._told, False)
        never = 10.0**9
        arguments = (
            os.getpid(),
            grace,
            hurry,
            never if max_runtime is None else max_runtime,
            words,
        )
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *map(str, arguments)],
            stdin=ours,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C and SIGTERM to a group are not meant for it
        )
        os.close(ours)
        self._before = signal.set_wakeup_fd(self._told, warn_on_full_buffer=False)

    def end(self) -> None:
        """Watch no more. Call it in the main thread."""
        signal.set_wakeup_fd(self._before)
        os.close(self._told)
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
