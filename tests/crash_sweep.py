"""Dies at every change that a run makes to the disk, goes on each time, and prints what went wrong.

A program of its own: it forks a child for each death, which only a process without threads may do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import pandas as pd  # noqa: F401 - before the forks, each of which would import it for pyarrow
import pyarrow.parquet  # noqa: F401 - likewise

import file_sinks
import mutants
from batchrunner.analytics import open_store
from batchrunner.runner import BatchRunner
from batchrunner.testing.crash import Death, Disk
from builders import Row, a_source, a_spec, rows, rows_out, write_jsonl
from forks import ChildFailed, in_child

SHARDS, ROWS = 4, 4
LASTING = {"adopts_without_files"}
"""Mutants that go on after the death: of code that only the next session runs."""
LEFT = (".staging/*", "_checkpoint/attempts/*", "_checkpoint/files/*", "_checkpoint/answers/*")
WHOLE = rows(0, SHARDS * ROWS)
BAD = 9
MARKED = [{**row, "bad": True} if row["id"] == BAD else row for row in WHOLE]


@dataclass(frozen=True)
class Job:
    """What a sweep interrupts.

    Attributes:
        capability: Of its spec.
        expected: The rows that come out in the end, whatever happened on the way.
        failed: How many are set aside in the end.
        again: It tries again the row that an earlier run set aside, undisturbed.
        runs: Its rows are runs, which are recorded; what comes out is what was recorded.
        touched: Two of its files were there before, and have another time since.
        fresh: It starts over, with another capability, after an undisturbed run.
        files: How many of its files are in a shard.
        early: It has one file, whose shard is slow and ends after a batch, as may those of the rest.
        publishes: Its rows name files, with other bytes in each attempt.
        changed: One of its files has other rows since an undisturbed run.
        damaged: One of its files cannot be read until it is mended, after the session that dies.
        journals: It is called row by row, and journals the answers.
    """

    capability: str
    expected: list[Row]
    failed: int = 0
    again: bool = False
    runs: bool = False
    touched: bool = False
    fresh: bool = False
    files: int = 1
    early: bool = False
    publishes: bool = False
    changed: bool = False
    damaged: bool = False
    journals: bool = False

    def prepare(self, folder: Path) -> None:
        a_source(folder / "in", shards=SHARDS, rows_per_shard=ROWS)
        if self.runs:
            for number in range(SHARDS):
                write_jsonl(folder / f"in/in-{number:03d}.jsonl", [{"datasets": f"d{number}"}])
        elif self.early:
            shutil.rmtree(folder / "in")
            write_jsonl(folder / "in/in.jsonl", WHOLE)
        elif self.capability not in ("one_shard_empty", "echo", "draws"):
            write_jsonl(folder / "in/in-002.jsonl", MARKED[8:12])
        if self.damaged:
            (folder / "in/in-002.jsonl").unlink()
            (folder / "in/in-002.jsonl.gz").write_bytes(b"this is no gzip")
        if self.again:
            in_child(lambda: self.runner(folder).run())
            (folder / "mended").touch()
        if self.fresh:
            before = Job("draws" if self.publishes else "echo", WHOLE, publishes=self.publishes)
            in_child(lambda: before.runner(folder).run())
        if self.changed:
            in_child(lambda: self.runner(folder).run())
            write_jsonl(folder / "in/in-001.jsonl", WHOLE[4:7])
        if self.touched:
            self.run_half(folder)

    def run_half(self, folder: Path) -> None:
        new = [path.rename(folder / path.name) for path in sorted((folder / "in").iterdir())[2:]]
        in_child(lambda: self.runner(folder).run())
        for path in (folder / "in").iterdir():
            os.utime(path, ns=(1, 1))
        for path in new:
            path.rename(folder / "in" / path.name)

    def runner(self, folder: Path) -> BatchRunner:
        if self.runs:
            return self.runs_runner(folder)
        module = "file_sinks" if self.publishes else "capabilities"
        target = {"target": f"{module}:{self.capability}"}
        if self.again:
            target["fn_kwargs"] = {"path": str(folder / "mended")}
        source = {"uri": str(folder / "in"), "shard": {"files": self.files}}
        sink = {"uri": str(folder / "out"), "format": "files" if self.publishes else None}
        execution = {"engine": "local"}
        if self.journals:
            target["mode"] = "row"
            execution |= {"journal_answers": True}
        if self.early:  # each batch takes longer than a shard may, on any machine
            target["fn_kwargs"] = {"seconds": 0.001}
            source["shard"] = {"seconds": 0.001}
            execution["batch_size"] = ROWS
        return BatchRunner(
            a_spec(
                folder,
                source=source,
                sink=sink,
                capability=target,
                errors={"max_row_errors": 1},
                execution=execution,
            )
        )

    def runs_runner(self, folder: Path) -> BatchRunner:
        capability = {
            "target": "evaluations:Accuracy",
            "mode": "run",
            "inputs": {"datasets": "evaluations:load_dataset"},
        }
        store = str(folder / "store")
        return BatchRunner(a_spec(folder, capability=capability, analytics_store=store))

    def differs(self, folder: Path) -> bool:
        """Return whether the output, with what is recorded of it, is not what is expected."""
        if self.publishes:
            ids = [row["id"] for row in rows_out(folder / "out")]
            return sorted(ids) != self.ids or bool(file_sinks.misfits(folder / "out"))
        if not self.runs:
            out = rows_out(folder / "out")
            # Of a shard that ends early, the rest comes after all others.
            return (sorted(out, key=itemgetter("id")) if self.early else out) != self.expected
        try:  # reading a store takes threads, after which a process may not fork
            in_child(lambda: self.check_recorded(folder))
        except ChildFailed:
            return True
        return False

    @property
    def ids(self) -> list[int]:
        return [row["id"] for row in self.expected]

    def check_recorded(self, folder: Path) -> None:
        store = open_store(str(folder / "store"))
        out = rows_out(folder / "out")
        runs = [store.read_run(row["store_uri"]) for row in out]
        assert [{"datasets": run.runs[0]["entity_id"]} for run in runs] == self.expected
        assert store.read_table("score").num_rows == len(out)
        assert store.read_table("batch_runs").num_rows == 1

    def go_on(self, folder: Path) -> None:
        """Go on as a user does who does not know of the death: what was begun is started over once."""
        if self.fresh and (folder / "out/_checkpoint/run-0001.json").exists():
            assert self.runner(folder).run().ok
            return
        self.go(folder)
        if self.damaged:
            content = "".join(json.dumps(row) + "\n" for row in WHOLE[8:12])
            (folder / "in/in-002.jsonl.gz").write_bytes(gzip.compress(content.encode()))
            assert self.runner(folder).retry().ok

    def go(self, folder: Path) -> None:
        runner = self.runner(folder)
        if self.damaged:
            report = runner.run()
            assert (report.exit_code, len(report.quarantined)) == (1, 1), report
            return
        report = runner.retry(rows=True) if self.again else runner.run(fresh=self.fresh)
        assert (report.ok, report.rows_failed) == (True, self.failed), report


JOBS = {
    "rows": Job("one_shard_empty", [r for r in WHOLE if not 4 <= r["id"] < 8 for _ in range(2)]),
    "errors": Job("raises_on_bad", [row for row in WHOLE if row["id"] != BAD], failed=1),
    "retry": Job(
        "fails_while_bad",
        [*(row for row in WHOLE if row["id"] != BAD), {**WHOLE[BAD], "bad": True}],
        again=True,
    ),
    "touched": Job("echo", WHOLE, touched=True),
    "packed": Job("raises_on_bad", [row for row in WHOLE if row["id"] != BAD], failed=1, files=3),
    "packed-retry": Job(
        "fails_while_bad",
        [*(row for row in WHOLE if row["id"] != BAD), {**WHOLE[BAD], "bad": True}],
        again=True,
        files=3,
    ),
    "packed-touched": Job("echo", WHOLE, touched=True, files=2),
    "packed-damaged": Job("echo", [*WHOLE[12:], *WHOLE[:12]], files=3, damaged=True),
    "fresh": Job("double", [{**row, "id": 2 * row["id"]} for row in MARKED], fresh=True),
    "early": Job("dawdles", [row for row in WHOLE if row["id"] != 13], failed=1, early=True),
    "files": Job("draws", WHOLE, publishes=True),
    "files-errors": Job(
        "draws_unless_bad", [r for r in WHOLE if r["id"] != BAD], failed=1, publishes=True
    ),
    "files-fresh": Job(
        "draws_unless_bad",
        [r for r in WHOLE if r["id"] != BAD],
        failed=1,
        fresh=True,
        publishes=True,
    ),
    "files-changed": Job("draws", [r for r in WHOLE if r["id"] != 7], publishes=True, changed=True),
    "journal": Job("even_or_none", WHOLE[::2], journals=True),
    "runs": Job("", [{"datasets": f"d{number}"} for number in range(SHARDS)], runs=True),
}


def sweep(folder: Path, death: Death, *, job: str = "rows", stride: int = 1) -> list[str]:
    """Run the sweep in a process of its own and return its findings; none is good."""
    deaths, *findings = _lines_of(folder, death, job, "", "", stride)
    least = 40 if JOBS[job].files > 1 else 50  # fewer shards are fewer changes
    assert int(deaths) * stride > least, "too few deaths to prove anything"
    return findings


def sees(folder: Path, death: Death, *, mutant: str, sign: str = "", job: str = "rows") -> bool:
    """Return whether the sweep has a finding with *sign* when *mutant* is applied; end with it."""
    _, *findings = _lines_of(folder, death, job, mutant, sign, 1)
    return any(sign in finding for finding in findings)


def _lines_of(*arguments: object) -> list[str]:
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def main(folder: Path, death: Death, job: Job, mutant: str, sign: str, stride: int) -> None:
    changes = changes_of_a_run(folder / "whole", job, mutant)
    deaths, findings = 0, []
    for die_at in range(1, len(changes) + 1, stride):
        place = folder / str(die_at)
        job.prepare(place)
        disk = Disk(die_at=die_at, death=death, seed=die_at)
        deaths += in_child(lambda: run(job, place, disk, mutant))  # noqa: B023 - called at once
        found = faults(job, place) or faults_after_going_on(job, place, mutant)
        findings += [f"change {die_at} ({changes[die_at - 1]}): {fault}" for fault in found]
        shutil.rmtree(place)
        if mutant and any(sign in finding for finding in findings):
            break  # the sweep sees it: that is all there is to show
    sys.stdout.write("\n".join([str(deaths), *findings]))


def changes_of_a_run(place: Path, job: Job, mutant: str) -> list[str]:
    job.prepare(place)

    def count() -> None:
        disk = Disk()
        run(job, place, disk, mutant)
        (place / "changes.json").write_text(json.dumps(disk.changes))

    assert not in_child(count)
    return json.loads((place / "changes.json").read_text())


def run(job: Job, place: Path, disk: Disk, mutant: str) -> None:
    mutants.apply(mutant)
    with disk.watched():
        job.go(place)


def faults(job: Job, place: Path) -> list[str]:
    """What is wrong on the disk, before anything is repaired."""
    out = place / "out"
    found = []
    records = max(out.glob("_checkpoint/run-*/"), default=out / "_checkpoint")
    for path in () if is_being_cleared(out) else records.glob("sentinels/*.json"):
        sentinel = json.loads(path.read_bytes() or b"{}")
        part = out / sentinel.get("part", "torn")
        if job.changed and path.stem == "part-00001":
            continue  # its shard is retired
        dead_letters = records / "errors" / (sentinel.get("errors") or "none")
        if not part.exists():
            found.append(f"{path.name} stands without its part")
        elif hashlib.sha256(part.read_bytes()).hexdigest() != sentinel["sha256"]:
            found.append(f"{path.name} lies about its part")
        elif dead_letters.name != "none" and lines(dead_letters) != 1:
            found.append(f"{path.name} stands without its dead letters")
        elif job.publishes:
            found += [f"{path.name} stands without its file {why}" for why in unfit(part)]
    before_it = job.again or job.touched or job.changed
    if (out / "_SUCCESS").exists() and not before_it and job.differs(place):
        ids = sorted(row["id"] for row in rows_out(out))
        if job.fresh and ids == sorted(row["id"] for row in MARKED):
            return found  # the run before it: nothing was removed yet
        found.append("_SUCCESS stands over another output")
    return found


def unfit(part: Path) -> list[str]:
    files = file_sinks.files_in(part.parent)
    return list(filter(None, (file_sinks.unfit(r, files) for r in file_sinks.lines_of(part))))


def is_being_cleared(out: Path) -> bool:
    """Return whether a new run was claimed and has no records yet: the old one's say nothing now."""
    checkpoint = out / "_checkpoint"
    return (checkpoint / "run-0001.json").exists() and not (checkpoint / "run-0001/plan").exists()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def faults_after_going_on(job: Job, place: Path, mutant: str) -> list[str]:
    committed = {} if job.fresh or job.changed else inodes(place)
    try:
        in_child(lambda: go_on(job, place, mutant))
    except ChildFailed:
        return ["the next run fails"]
    found = faults(job, place)
    if job.differs(place):
        found.append("the output differs")
    if committed.items() - inodes(place).items():
        found.append("a committed part was touched")
    if not (place / "out/_SUCCESS").exists():
        found.append("no _SUCCESS")
    if (job.files > 1) != (place / "out/_manifest_sources").exists():
        found.append("the manifest names sources that are not there, or the other way around")
    if owner(place / "out") != json.loads((place / "out/_SUCCESS").read_bytes())["run_uid"]:
        found.append("the mark in the sink is of another run")
    out = place / "out"
    left = [path for name in LEFT for path in out.glob(name)]
    left = [path for path in left if not is_success(path, place / "out")]
    named = len(list((place / "out").glob("_checkpoint/errors/*")))
    if named > 1:
        found.append(f"{named} files of one row set aside")
    return [*found, *(f"left behind: {path.name}" for path in left)]


def go_on(job: Job, place: Path, mutant: str) -> None:
    mutants.apply(mutant if mutant in LASTING else "")
    job.go_on(place)


def owner(out: Path) -> str:
    """The run that has the sink, by its mark."""
    return str(json.loads((out / "_owner.json").read_bytes())["run_uid"])


def is_success(path: Path, out: Path) -> bool:
    """Return whether *path* is the other name of `_SUCCESS`, whose writer died as it had both.

    Nothing comes after `_SUCCESS` that could take it away: `clean`, and the next session, do.
    """
    return (out / "_SUCCESS").exists() and path.samefile(out / "_SUCCESS")


def inodes(job: Path) -> dict[str, int]:
    """The committed parts, and which file each is."""
    out = job / "out"
    sentinels = [json.loads(p.read_text()) for p in out.glob("_checkpoint/sentinels/*.json")]
    names = [s["part"] for s in sentinels if (out / s["part"]).exists()]
    if job_publishes(out):
        names += [line["path"] for part in names for line in file_sinks.lines_of(out / part)]
    return {name: (out / name).stat().st_ino for name in names if (out / name).exists()}


def job_publishes(out: Path) -> bool:
    return any(out.glob("*/*.bin"))


if __name__ == "__main__":
    _, folder, death, job, mutant, sign, stride = sys.argv
    main(Path(folder), Death(death), JOBS[job], mutant, sign, int(stride))
