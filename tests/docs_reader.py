"""A reader of the documentation, who pastes the blocks of a page into one shell, from an empty folder.

Where a block went by `cd`, and what it exported, is there for the next one. He has a home of his own, where Ray keeps the token of its authentication, which nothing turns off.
The command `ray` is the real one, but for what the machine shares with others: `ray start --head`
takes free ports, and is the one cluster of all pages; `ray stop` is left out, for it ends every Ray
of the machine. 127.0.0.1:6379 in a block is read as the port that was taken.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

_RAY = """#!/bin/sh
case "$1" in
  start) test -e {up} || {{ {ray} "$@" {options} && touch {up}; }} ;;
  stop) ;;
  *) exec {ray} "$@" ;;
esac
"""
_SHELL = """test ! -e {state} || . {state}
trap '{{ echo cd "${{PWD@Q}}"; export -p; }} > {state}' EXIT
{text}"""
_FRUGAL = "--include-dashboard=false --num-cpus=2 --object-store-memory=100000000"
_OURS = ("RAY_", "AWS_", "BATCHRUNNER_", "PYTHONPATH")  # of the user who runs the tests
_PRINTED = "127.0.0.1:6379"


class Reader:
    """See above.

    Attributes:
        root: Everything of his lies below; its path is short, for Ray's sockets lie there, too.
    """

    def __init__(self, root: Path, *, s3_endpoint: str, **environment: str) -> None:
        self.root = root
        self._ports = _free_ports(2)
        self._environment = {**self._environ(s3_endpoint), **environment}
        (root / "bin").mkdir()
        for name in ("home", "tmp"):
            (root / name).mkdir()
        self._install_ray()

    def a_folder(self) -> Path:
        """Make an empty one."""
        return Path(tempfile.mkdtemp(dir=self.root))

    def run(self, language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a block of the page that begins in *folder* to its end, as printed."""
        text = text.replace(_PRINTED, f"127.0.0.1:{self._ports[0]}")
        line = text if language == "bash" else f"{sys.executable} -c {shlex.quote(text)}"
        state = shlex.quote(str(folder.with_suffix(".state")))
        command = ["bash", "-ec", _SHELL.format(state=state, text=line)]
        output = folder.with_suffix(".output")  # a pipe would be kept open by daemons
        with output.open("w") as file:
            done = subprocess.run(
                command,
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return subprocess.CompletedProcess(command, done.returncode, output.read_text())

    def write(self, name: str, text: str, folder: Path) -> None:
        """Save a block as a file where the shell of the page is."""
        self.run("bash", f"printf %s {shlex.quote(text)} > {shlex.quote(name)}", folder)

    def leave(self) -> None:
        """End what he left running: all that works in a folder of his."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self.root):
                    process.kill()

    def _environ(self, s3_endpoint: str) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        own: dict[str, Any] = {
            "HOME": self.root / "home",
            "PATH": f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_TMPDIR": self.root / "tmp",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "AWS_ENDPOINT_URL": s3_endpoint,
            "AWS_ACCESS_KEY_ID": "AKTEST",
            "AWS_SECRET_ACCESS_KEY": "SKTEST",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return {**inherited, **{name: str(value) for name, value in own.items()}}

    def _install_ray(self) -> None:
        port, client_port = self._ports
        command = self.root / "bin/ray"
        text = _RAY.format(
            up=shlex.quote(str(self.root / "tmp/up")),
            ray=shlex.quote(str(Path(sys.executable).with_name("ray"))),
            options=f"--port={port} --ray-client-server-port={client_port} {_FRUGAL}",
        )
        command.write_text(text)
        command.chmod(0o755)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
