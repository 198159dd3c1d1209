"""Workers and drivers of runs that ended: what they do late is never taken for the next run's."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

import mutants
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.commit import Finished, commit
from batchrunner.driver.dispatch import Dispatcher
from batchrunner.errors import (
    CapabilityImportError,
    DamagedOutputError,
    ForeignOutputError,
    InvalidSpecError,
    LeaseHeldError,
)
from batchrunner.storage import open_storage
from batchrunner.testing.faulty import Faults, faulty_scheme
from batchrunner.testing.memory import MemoryStorage
from batchrunner.verify import verify
from builders import a_source, a_spec, parts, rows, rows_out, write_jsonl
from command import ENVIRONMENT
from patience import PATIENCE
from paused_driver import POINTS


def old_code(rows):
    return [{**row, "by": "old code"} for row in rows]


def a_run_by(folder, capability, **changes):
    spec = a_spec(folder, capability=None, **changes)
    return BatchRunner(spec, capability=capability)


def files(folder):
    """Every file below *folder* with its bytes, but for what is on its way."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in found if ".staging" not in p.parts}


def made(out):
    """All of the output, without what differs between sessions."""
    return {path.name: path.read_bytes() for path in [*parts(out), out / "_manifest.json"]}


def ends_well(folder, spec, *, ids):
    """The output is whole, `verify` finds nothing, and the same line again changes nothing."""
    out = folder / "out"
    assert sorted(row["id"] for row in rows_out(out)) == ids
    assert verify(spec).ok, verify(spec).findings
    before = files(out)
    report = BatchRunner(spec).run()
    assert (report.ok, report.shards_new, files(out)) == (True, 0, before)


class Zombie:
    """A worker of the first run, which was killed; its hands still move."""

    def __init__(self, folder, *, shard):
        self.sink = open_storage(str(folder / "out"))
        self.checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
        record = self.checkpoint.run()
        self.stem = f"part-{shard:05d}"
        self.sentinel = self.checkpoint.sentinel(self.stem, run_uid=record.run_uid)
        self.data = (folder / "out" / self.sentinel.part).read_bytes()

    def _staged(self):
        staged = self.sink.stage()
        staged.file.write(self.data)
        staged.file.close()
        return staged

    def commits(self):
        """Do what the product does for a shard that is made."""
        finished = Finished(self.stem, self._staged(), self.sentinel)
        commit([finished], sink=self.sink, checkpoint=self.checkpoint)

    def publishes(self):
        """The same, and die before the sentinel."""
        self.sink.publish({self.sentinel.part: (self._staged(), self.sentinel.to_bytes())})


def a_dead_run(folder, *, shards=3):
    a_source(folder / "in", shards=shards)
    assert a_run_by(folder, old_code).run().ok


def new_code_beside(act):
    """New code, during whose first call the zombie acts."""
    acted = []

    def new_code(rows):
        if not acted:
            acted.append(1)
            act()
        return [{**row, "by": "new code"} for row in rows]

    return new_code


def starts_over(folder, act, **changes):
    """Start over with new code, beside the zombie; return the runner, and how the run went."""
    runner = a_run_by(folder, new_code_beside(act), **changes)
    return runner, runner.run(fresh=True)


def is_the_new_code_s(folder, runner, report, *, count):
    out = folder / "out"
    assert report.ok, report.failures
    assert {row["by"] for row in rows_out(out)} == {"new code"}
    assert sorted(row["id"] for row in rows_out(out)) == list(range(count))
    assert verify(runner.spec).ok, verify(runner.spec).findings
    before = files(out)
    assert runner.run().shards_new == 0
    assert before == files(out)


@pytest.mark.parametrize("act", [Zombie.commits, Zombie.publishes])
@pytest.mark.parametrize("shard", [0, 2])
def test_a_worker_of_the_dead_run_adds_nothing_to_the_one_that_starts_over(tmp_path, act, shard):
    """Its part, of the old code, was made before the new run came to that shard."""
    a_dead_run(tmp_path)
    zombie = Zombie(tmp_path, shard=shard)

    runner, report = starts_over(tmp_path, lambda: act(zombie))

    is_the_new_code_s(tmp_path, runner, report, count=12)


@pytest.mark.parametrize("act", [Zombie.commits, Zombie.publishes])
def test_a_late_part_that_is_no_shard_of_the_new_plan_does_not_stay(tmp_path, act):
    """Other shards under the same numbers: rows would be lost and doubled."""
    a_dead_run(tmp_path, shards=6)
    zombies = [Zombie(tmp_path, shard=shard) for shard in (1, 5)]
    for number in range(3):  # two files become one
        first = 8 * number
        write_jsonl(tmp_path / f"in/in-{number:03d}.jsonl", rows(first, 8))
        (tmp_path / f"in/in-{number + 3:03d}.jsonl").unlink()

    runner, report = starts_over(tmp_path, lambda: [act(zombie) for zombie in zombies])

    is_the_new_code_s(tmp_path, runner, report, count=24)


@pytest.mark.parametrize("act", [Zombie.commits, Zombie.publishes])
def test_a_late_part_is_found_by_the_session_after_the_one_that_cleared(tmp_path, act):
    """That one died once the new plan stood: the next one goes on, and does not adopt."""
    a_dead_run(tmp_path)
    zombies = [Zombie(tmp_path, shard=shard) for shard in (0, 2)]

    def dies(self, shards, engine):
        raise KeyboardInterrupt

    dying = a_run_by(tmp_path, new_code_beside(lambda: None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "go", dies)
        with pytest.raises(KeyboardInterrupt):
            dying.run(fresh=True)
    for zombie in zombies:
        act(zombie)

    runner = a_run_by(tmp_path, new_code_beside(lambda: None))
    report = runner.run(accept_changes=True)

    is_the_new_code_s(tmp_path, runner, report, count=12)


def test_a_part_of_no_run_stays_and_is_reported_also_after_starting_over(tmp_path):
    """Only what a run of this checkpoint vouches for may be removed."""
    a_dead_run(tmp_path)
    stranger = tmp_path / "out/part-00002.jsonl"

    def act():
        stranger.write_text('{"id": 8, "by": "a stranger"}\n')

    _, report = starts_over(tmp_path, act)

    assert not report.ok
    assert "was not written by this run" in report.failures[2].reason
    assert "a stranger" in stranger.read_text()
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_what_a_run_remembers_goes_once_the_next_one_is_complete(tmp_path):
    """Ten times started over is not ten times the records."""
    a_dead_run(tmp_path)
    for _ in range(2):
        starts_over(tmp_path, lambda: None)

    checkpoint = tmp_path / "out/_checkpoint"
    assert {path.name for path in checkpoint.glob("run*.json")} == {"run-0002.json"}
    left = {p.relative_to(checkpoint).parts[0] for p in checkpoint.rglob("*") if p.is_file()}
    assert left == {"run-0002.json", "run-0002", "lease", "sessions"}


def test_a_sentinel_of_another_run_among_the_records_is_not_trusted(tmp_path):
    """Were it written there all the same, by a version that knows no incarnations: that is reported."""
    assert "was not written by this run" in failure_beside_a_foreign_sentinel(tmp_path)


def test_a_sentinel_of_another_run_would_be_trusted_without_the_comparison(tmp_path, monkeypatch):
    """A test that this mutant survives would prove nothing."""
    monkeypatch.setattr(Sentinel, "is_of", Sentinel.is_of)  # so that it is put back
    mutants.apply("trusts_any_sentinel")

    # No shard fails: only the look at all parts, before the end, still finds it.
    with pytest.raises(DamagedOutputError, match="its sentinel is of another run"):
        failure_beside_a_foreign_sentinel(tmp_path)


def failure_beside_a_foreign_sentinel(folder):
    """Let the zombie write into the records of the new run, which nothing can prevent."""
    a_dead_run(folder)
    zombie = Zombie(folder, shard=2)

    def act():
        zombie.checkpoint = Checkpoint.current(zombie.checkpoint.storage)
        zombie.commits()

    _, report = starts_over(folder, act)
    return report.failures[2].reason if report.failures else ""


# A driver that was paused


def driver(folder, host, *, point="", mutant="", flags=()):
    script = Path(__file__).parents[1] / "paused_driver.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), host, point, mutant, *flags],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(happened, *processes):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        ended = [process.communicate() for process in processes if process.poll() is not None]
        assert not ended, ended
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_stopped(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def paused_driver(folder, point, *, mutant=""):
    """A driver that stands still at *point*."""
    flags = () if point.startswith("before") else ("fresh",)
    if flags:  # there is something to start over from
        with driver(folder, "here") as earlier:
            assert ends(earlier) == (0, "")
    with driver(folder, "here", point=point, mutant=mutant, flags=flags) as first:
        try:
            wait_for(lambda: is_stopped(first), first)
            yield first
        finally:
            first.kill()


def ends(process):
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in stderr, stderr
    return process.returncode, stdout


@pytest.fixture
def growing(tmp_path):
    """A source that has grown, and changed, by the time at which the second driver looks."""
    a_source(tmp_path / "in", shards=4)

    def grow():
        write_jsonl(tmp_path / "in/in-001.jsonl", rows(50, 3))
        for number in range(4, 7):
            write_jsonl(tmp_path / f"in/in-{number:03d}.jsonl", rows(100 + 4 * number, 4))

    return tmp_path, grow


IDS = sorted([*range(4), *range(8, 16), 50, 51, 52, *range(116, 128)])


def the_spec(folder):
    """As the drivers have it."""
    kwargs = {"folder": str(folder)}
    target = "capabilities:waits_for_a_word"
    return a_spec(folder, capability={"target": target, "fn_kwargs": kwargs, "version": "1"})


def damage_done(folder, point, grow, *, mutant="", during):
    """Pause, displace, wake up; return what is wrong in the end."""
    out, wrong = folder / "out", []
    with paused_driver(folder, point, mutant=mutant) as first:
        grow()
        if not during:
            (folder / "go").touch()
        with driver(folder, "other") as second:
            if during:
                wait_for((folder / "waiting").exists, second)
            else:
                assert ends(second) == (0, "")
            before = {} if during else made(out)
            first.send_signal(signal.SIGCONT)
            code, said = ends(first)
            if during and (out / "_SUCCESS").exists():
                wrong.append("_SUCCESS stands over half an output")
            (folder / "go").touch()
            assert not during or ends(second) == (0, "")
    if code != 4 or "LeaseHeldError" not in said:
        wrong.append(f"the first driver ended with {code}: {said}")
    if before and before != made(out):
        wrong.append("the second driver's output is changed")
    return wrong


@pytest.mark.parametrize(
    "during",
    [
        pytest.param(True, id="wakes during"),
        pytest.param(False, id="wakes after", marks=pytest.mark.sweep),
    ],
)
@pytest.mark.parametrize("point", POINTS)
def test_a_driver_that_was_displaced_while_it_stood_still_does_nothing_more(growing, point, during):
    """A paused machine, a stalled disk: the output is the second driver's, byte for byte."""
    folder, grow = growing

    assert damage_done(folder, point, grow, during=during) == []

    ends_well(folder, the_spec(folder), ids=IDS)


@pytest.mark.parametrize(
    ("mutant", "point", "during"),
    [
        ("never_looks_at_the_lease", "before _SUCCESS", True),
        ("never_looks_at_the_lease", "before the manifest", False),
        ("deletes_by_name", "at a removal in the middle", False),
    ],
)
def test_the_pause_shows_what_goes_wrong_without_the_fence(growing, mutant, point, during):
    """Success without the lease, a removal by name: tests that these survive prove nothing."""
    folder, grow = growing

    assert damage_done(folder, point, grow, mutant=mutant, during=during) != []


def test_a_manifest_that_is_not_what_the_sentinels_say_is_mended_by_the_next_run(tmp_path):
    """An earlier version let a displaced driver write it; `run` then said "done" for ever."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path)
    BatchRunner(spec).run()
    manifest = tmp_path / "out/_manifest.json"
    right = manifest.read_bytes()
    for wrong in (b"{}", None):
        manifest.unlink()
        if wrong:
            manifest.write_bytes(wrong)

        assert BatchRunner(spec).run().shards_new == 0
        assert manifest.read_bytes() == right
        assert json.loads((tmp_path / "out/_SUCCESS").read_text())["manifest_sha256"]


def test_the_fence_costs_few_requests():
    """Looks at the lease are listings; a run with nothing to do is to be as quick as before."""
    name = uuid.uuid4().hex
    MemoryStorage(name).put("in/0.jsonl", b'{"id": 0}\n')
    places = {"source": f"memory://{name}/in", "sink": f"memory://{name}/out"}
    runner = BatchRunner(a_spec(Path(), **places))

    def requests():
        faults = Faults()
        with faulty_scheme("memory", faults):
            assert runner.run().ok
        return [call for call in faults.calls if call not in ("read", "write", "stage")]

    assert len(requests()) <= 45  # before the fence 43; one is the mark, one the last sweep
    # The `head` is that of the source, which was not counted while its storage was kept from before.
    assert Counter(requests()) == {"list": 8, "get": 5, "head": 1}


# A refusal


def of_another_run(folder):
    """Another job's finished output in the sink, which has its own checkpoint."""
    spec = a_spec(folder, checkpoint_dir=str(folder / "other"))
    BatchRunner(spec).run()


def same_names_of_another_run(folder):
    """The same, where this run had its output before the user moved it away."""
    BatchRunner(a_spec(folder)).run()
    names = ("_SUCCESS", "_manifest.json", "_owner.json")
    for path in (*parts(folder / "out"), *(folder / "out" / name for name in names)):
        path.unlink()
    of_another_run(folder)


def test_output_whose_plan_is_gone_is_moved_aside(tmp_path):
    """Nothing vouches for it, and some of it may be another job's."""
    a_source(tmp_path / "in")
    BatchRunner(a_spec(tmp_path)).run()
    (tmp_path / "out/part-00001.jsonl").write_text("another job's\n")
    before = {path.read_bytes() for path in parts(tmp_path / "out")}
    shutil.rmtree(tmp_path / "out/_checkpoint/plan")

    assert BatchRunner(a_spec(tmp_path)).run(fresh=True).shards_new == 3

    assert {path.read_bytes() for path in tmp_path.glob("out/_damaged/*/part-*")} == before


def a_stranger_s_part(folder):
    BatchRunner(a_spec(folder)).run()
    (folder / "out/part-00009.jsonl").write_text("{}\n")


def nothing_to_read(folder):
    BatchRunner(a_spec(folder)).run()
    write_jsonl(folder / "in/in-000.jsonl", [])
    shutil.rmtree(folder / "in")


def another_driver_runs(folder):
    from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease

    BatchRunner(a_spec(folder)).run()
    owner = LeaseOwner.this_process("a session")
    acquire_lease(open_storage(str(folder / "out/_checkpoint")), owner)


def code_is_broken(folder):
    BatchRunner(a_spec(folder)).run()
    return {"capability": "broken_capability:f"}


def weights_are_gone(folder):
    BatchRunner(a_spec(folder)).run()
    return {"capability": {"target": "capabilities:echo", "files": [str(folder / "gone")]}}


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (of_another_run, ForeignOutputError),
        (same_names_of_another_run, ForeignOutputError),
        (a_stranger_s_part, ForeignOutputError),
        (nothing_to_read, OSError),
        (another_driver_runs, LeaseHeldError),
        (code_is_broken, CapabilityImportError),
        (weights_are_gone, InvalidSpecError),
    ],
)
def test_starting_over_that_is_refused_changes_no_file(tmp_path, prepare, error):
    """Exit 4 promises that nothing was touched, in the sink and in the checkpoint."""
    a_source(tmp_path / "in")
    changes = prepare(tmp_path) or {}
    before = files(tmp_path)

    with pytest.raises(error):
        BatchRunner(a_spec(tmp_path, **changes)).run(fresh=True)

    assert files(tmp_path) == before
