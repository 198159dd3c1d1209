"""Dies at every change that a repair makes to the disk, goes on each time, and prints what went wrong.

A program of its own: it forks a child for each death, which only a process without threads may do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd  # noqa: F401 - before the forks, each of which would import it for pyarrow
import pyarrow.parquet  # noqa: F401 - likewise

import damage
from batchrunner.errors import RunRefusedError
from batchrunner.runner import BatchRunner
from batchrunner.testing.crash import Death, Disk
from batchrunner.verify import repair, repairing, verify
from builders import a_source, a_spec, rows, rows_out
from forks import ChildFailed, in_child

SHARDS, ROWS = 4, 4
EXPECTED = rows(0, SHARDS * ROWS)


def sweep(folder: Path, death: Death, *, mutant: str = "", stride: int = 1) -> list[str]:
    """Run the sweep in a process of its own and return its findings; none is good."""
    command = [sys.executable, __file__, str(folder), death, mutant, str(stride)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    deaths, *findings = done.stdout.splitlines()
    assert int(deaths) > 8, "too few deaths to prove anything"
    return findings


def main(folder: Path, death: Death, mutant: str, stride: int) -> None:
    apply(mutant)
    a_source(folder / "in", shards=SHARDS, rows_per_shard=ROWS)
    in_child(lambda: run(folder))
    harm(folder / "out")
    shutil.move(folder / "out", folder / "harmed")
    before = held(folder / "harmed")
    changes = changes_of_a_repair(folder)
    deaths, findings = 0, []
    for die_at in range(1, len(changes) + 1, stride):
        shutil.copytree(folder / "harmed", folder / "out")
        disk = Disk(die_at=die_at, death=death, seed=die_at)
        deaths += in_child(lambda: mend(folder, disk))  # noqa: B023 - called at once
        found = faults(folder / "out", folder / "harmed", before)
        found += faults_after_going_on(folder)
        findings += [f"change {die_at} ({changes[die_at - 1]}): {fault}" for fault in found]
        shutil.rmtree(folder / "out")
    sys.stdout.write("\n".join([str(deaths), *findings]))


def faults(out: Path, harmed: Path, before: set[bytes]) -> list[str]:
    """What is wrong on the disk, before the run goes on."""
    found = [] if held(out) >= before else ["something that holds rows is gone"]
    if (out / "_SUCCESS").exists() and names(out) != names(harmed):
        found.append("_SUCCESS stands over less than before")
    return found


def names(out: Path) -> list[str]:
    return sorted(path.name for path in [*out.glob("part-*"), *out.rglob("sentinels/*")])


def harm(out: Path) -> None:
    """Damage of every kind at once, and one shard left whole."""
    damage.copied(out)
    damage.flip(damage.part(out, 0), 77)
    damage.cut(out)
    damage.torn_sentinel(out)
    damage.part(out, 2).unlink()


def changes_of_a_repair(folder: Path) -> list[str]:
    shutil.copytree(folder / "harmed", folder / "out")

    def count() -> None:
        disk = Disk()
        mend(folder, disk)
        (folder / "changes.json").write_text(json.dumps(disk.changes))

    assert not in_child(count)
    shutil.rmtree(folder / "out")
    return json.loads((folder / "changes.json").read_text())


def run(folder: Path) -> None:
    assert BatchRunner(a_spec(folder, capability="capabilities:echo")).run().ok


def mend(folder: Path, disk: Disk) -> None:
    with disk.watched():
        repair(a_spec(folder, capability="capabilities:echo"))


def held(out: Path) -> set[bytes]:
    """The content of all parts, wherever they are."""
    return {path.read_bytes() for path in out.rglob("part-*.jsonl") if "errors" not in path.parts}


def faults_after_going_on(folder: Path) -> list[str]:
    """Go on as a user would who does not know of the repair, and check the end."""
    try:
        in_child(lambda: go_on(folder))
    except ChildFailed:
        return ["going on fails"]
    out = folder / "out"
    found = [] if rows_out(out) == EXPECTED else ["the output differs"]
    return found + ([] if (out / "_SUCCESS").exists() else ["no _SUCCESS"])


def go_on(folder: Path) -> None:
    spec = a_spec(folder, capability="capabilities:echo")
    try:
        run(folder)
    except RunRefusedError:
        assert not verify(spec).ok, "refused, and nothing is found"
    if not verify(spec).ok:
        repair(spec)
        run(folder)
    assert verify(spec).ok


def apply(mutant: str) -> None:
    """Break this process: a sweep that does not notice proves nothing."""
    if mutant == "deletes":
        repairing._Repairer._move = lambda self, storage, name: storage.delete([name])
    if mutant == "success_stays":
        repairing._Repairer.declare_incomplete = lambda self: None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Death(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
