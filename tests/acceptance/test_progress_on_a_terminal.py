"""What a terminal shows while there is a progress bar."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios

from builders import a_source
from command import ENVIRONMENT, a_spec_file

CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(*arguments, cwd, at):
    """Run `batchrunner` on a terminal of 80 columns; interrupt it twice, each *at* some output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        command = [sys.executable, "-m", "batchrunner", *arguments]
        environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "80"}
        os.execve(command[0], command, environment)  # noqa: S606 - ours
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    while data := read(terminal):
        shown += data
        while at and at[0] in shown:
            at = at[1:]
            os.write(terminal, b"\x03")
    return shown, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end is closed
        return b""


def test_no_line_is_glued_to_the_bar(tmp_path):
    """A log line that begins in the middle of another one is not read."""
    a_source(tmp_path / "in", shards=2)
    target = {"target": "capabilities:logs_and_hangs", "fn_kwargs": {"path": f"{tmp_path}/never"}}
    a_spec_file(tmp_path, capability=target)

    interrupts = (b"a long warning", b"stopping: ")
    shown, code = on_a_terminal("-v", "run", "spec.yaml", cwd=tmp_path, at=interrupts)

    assert code == 128 + signal.SIGINT, shown
    text = CONTROL.sub(b"", shown)
    assert b"0 of 2" in text  # there was a bar
    lines = (
        b"session_started epoch=1 pid=",
        b"plan_made shards=2 pending=2",
        b"a long warning " + b"word " * 30 + b"its end",
        b"stopping: the shards in flight are finished first",
        b"dropping the shards in flight",
        b"session_ended committed=0 failed=0 stopped=SIGINT",
        b"stopped (SIGINT): 0 of 2 shards committed",
        b"next: batchrunner -v run spec.yaml",
    )
    for line in lines:
        assert re.search(rb"[\r\n]" + re.escape(line), text), (line, text)
