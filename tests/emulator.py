"""A command in a real pseudo-terminal, whose screen is what an independent emulator makes of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pyte

from command import ENVIRONMENT
from patience import PATIENCE

SCROLLED = 100_000


class Terminal:
    """The `batchrunner` command on a terminal; `screen` is what a person sees now."""

    def __init__(self, *arguments, cwd, columns=80, lines=24, script="", **environment):
        """Start `batchrunner` with *arguments*, or, in place of it, a *script* of bash."""
        self.emulator = pyte.HistoryScreen(columns, lines, history=SCROLLED, ratio=0.001)
        self.stream = pyte.ByteStream(self.emulator)
        self.raw = b""
        command = [sys.executable, "-m", "batchrunner", *map(str, arguments)]
        if script:
            command = ["bash", "-c", script]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # The parent says how large it is before the command looks.
            os.read(0, 1)
            os.chdir(cwd)
            inherited = {k: v for k, v in ENVIRONMENT.items() if k not in ("COLUMNS", "LINES")}
            variables = {**inherited, "TERM": "xterm-256color", **environment}
            os.execvpe(command[0], command, variables)  # noqa: S606 - ours
        self.resize(columns, lines)
        os.write(self.fd, b"\n")

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.emulator.resize(lines, columns)

    def press(self, keys):
        os.write(self.fd, keys)

    def signal(self, number):
        os.kill(self.pid, number)

    @property
    def screen(self):
        return [line.rstrip() for line in self.emulator.display]

    @property
    def scrolled(self):
        """Every line that there is, those that have scrolled off the top included."""
        above = [
            "".join(line[x].data for x in range(self.emulator.columns)).rstrip()
            for line in self.emulator.history.top
        ]
        return [*above, *self.screen]

    def until(self, seen):
        """Read until *seen*, a text or a function of this terminal, is true of the screen."""
        test = (lambda t: any(seen in line for line in t.screen)) if isinstance(seen, str) else seen
        deadline = time.monotonic() + PATIENCE
        while not test(self):
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"never saw {seen!r}:\n" + "\n".join(self.scrolled))
        return self

    def end(self):
        """Read to the end, and return the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self):
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)

    def _read(self, seconds):
        if not select.select([self.fd], [], [], max(0, seconds))[0]:
            raise AssertionError("the command hangs:\n" + "\n".join(self.scrolled))
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # EIO: the other end is closed
            return b""
        self.raw += data
        self.stream.feed(data)
        return data
