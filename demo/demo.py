"""A real batch on real data: run, killed with SIGKILL, resumed, compared with an undisturbed run.

Everything happens in `.demo/`; the commands are shown as they are run.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from stdlib import extract

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".demo"
BATCHRUNNER = [sys.executable, "-m", "batchrunner"]


def main() -> None:
    """Tell the story from beginning to end; exit with 1 when it ends badly."""
    shutil.rmtree(PLACE, ignore_errors=True)
    count = extract(PLACE / "functions")
    say(f"{count:,} functions of the standard library are in .demo/functions/")
    say("1. An undisturbed run, to compare with.")
    run("run", "specs/demo.yaml", OUT="whole")
    say("2. The same into another folder, and kill -9 in the middle of it.")
    kill_in_the_middle("run", "specs/demo.yaml", OUT="killed")
    say("3. What is there? The checkpoint knows, without Ray.")
    run("status", ".demo/killed/_checkpoint")
    say("4. The same line again: only what is missing runs.")
    run("run", "specs/demo.yaml", OUT="killed")
    say("5. And once more: nothing is left to do.")
    run("run", "specs/demo.yaml", OUT="killed")
    compare()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m", flush=True)


def show(arguments: tuple[str, ...], variables: Mapping[str, str]) -> None:
    settings = "".join(f"{name}={value} " for name, value in variables.items())
    print(f"$ {settings}batchrunner {shlex.join(arguments)}", flush=True)


def start(arguments: tuple[str, ...], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    show(arguments, variables)
    environment = {**os.environ, **variables}
    return subprocess.Popen([*BATCHRUNNER, *arguments], cwd=ROOT, env=environment)  # noqa: S603 - our own


def run(*arguments: str, **variables: str) -> None:
    """Run a command to its end, which must be good."""
    code = start(arguments, variables).wait()
    if code:
        sys.exit(f"the demo failed: exit code {code}")


def kill_in_the_middle(*arguments: str, **variables: str) -> None:
    """Run a command and kill it without warning once a third of its parts is there."""
    whole = len(parts("whole"))
    process = start(arguments, variables)
    while len(parts("killed")) < whole // 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"kill -9 {process.pid}   ({len(parts('killed'))} of {whole} parts were there)")


def parts(folder: str) -> dict[str, str]:
    """Hash of each part."""
    found = sorted((PLACE / folder).glob("part-*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def compare() -> None:
    """Say whether the killed run ended as the undisturbed one did."""
    whole, killed = parts("whole"), parts("killed")
    if whole != killed:
        sys.exit("the outputs differ: this must not happen")
    say(f"All {len(whole)} parts are the same, byte for byte: no row lost, none twice.")
    print("Look at them: .demo/killed/part-00000.jsonl, _manifest.json, _checkpoint/")


if __name__ == "__main__":
    main()
