"""The end of the driver from outside, when none of its own threads can run.

A call that holds the interpreter's lock, such as a regular expression gone wrong, keeps every thread
and every signal handler of its process waiting. What Python still does is to write the number of a
signal into a pipe, in C. A small process reads that pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

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
