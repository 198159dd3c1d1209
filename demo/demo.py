"""A real batch on real data: run, killed with SIGKILL, resumed, compared with an undisturbed run.

The folders `.demo/whole` and `.demo/killed` are what `batchrunner init demo` makes; the commands are
shown as they are run.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path(__file__).parents[1] / ".demo"
BATCHRUNNER = [sys.executable, "-m", "batchrunner"]


def main() -> None:
    """Tell the story from beginning to end; exit with 1 when it ends badly."""
    for folder in ("whole", "killed"):
        shutil.rmtree(PLACE / folder, ignore_errors=True)
    PLACE.mkdir(exist_ok=True)
    say("1. An undisturbed run, to compare with.")
    run("init", "demo", "whole")
    run("run", "spec.yaml", folder="whole")
    say("2. The same in another folder, and kill -9 in the middle of it.")
    run("init", "demo", "killed")
    kill_in_the_middle("run", "spec.yaml", folder="killed")
    say("3. What is there? The checkpoint knows, without Ray.")
    run("status", "spec.yaml", folder="killed")
    say("4. The same line again: only what is missing runs.")
    run("run", "spec.yaml", folder="killed")
    say("5. And once more: nothing is left to do.")
    run("run", "spec.yaml", folder="killed")
    compare()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m", flush=True)


def start(*arguments: str, folder: str) -> subprocess.Popen[bytes]:
    where = f"(cd {folder}) " if folder else ""
    print(f"$ {where}batchrunner {shlex.join(arguments)}", flush=True)
    return subprocess.Popen([*BATCHRUNNER, *arguments], cwd=PLACE / folder)  # noqa: S603 - our own


def run(*arguments: str, folder: str = "") -> None:
    """Run a command to its end, which must be good."""
    code = start(*arguments, folder=folder).wait()
    if code:
        sys.exit(f"the demo failed: exit code {code}")


def kill_in_the_middle(*arguments: str, folder: str) -> None:
    """Run a command and kill it without warning once a third of its parts is there."""
    whole = len(parts("whole"))
    process = start(*arguments, folder=folder)
    while len(parts(folder)) < whole // 3 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"kill -9 {process.pid}   ({len(parts(folder))} of {whole} parts were there)")


def parts(folder: str) -> dict[str, str]:
    """Hash of each part."""
    found = sorted((PLACE / folder / "out").glob("part-*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def compare() -> None:
    """Say whether the killed run ended as the undisturbed one did."""
    whole, killed = parts("whole"), parts("killed")
    if whole != killed:
        sys.exit("the outputs differ: this must not happen")
    say(f"All {len(whole)} parts are the same, byte for byte: no row lost, none twice.")
    print("Look at them: .demo/killed/out/part-00000.jsonl, _manifest.json, _checkpoint/")


if __name__ == "__main__":
    main()
