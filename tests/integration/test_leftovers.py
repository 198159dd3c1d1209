"""What `clean` lists and removes, and what it leaves alone."""

from __future__ import annotations

import os
import shutil

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease
from batchrunner.driver.progress import NoDisplay
from batchrunner.errors import LeaseHeldError
from batchrunner.storage import open_storage
from batchrunner.verify import repair, verify
from batchrunner.views.garbage import Garbage
from batchrunner.views.report_data import run_report
from batchrunner.views.status import status_of
from builders import a_source, a_spec, rows_out


@pytest.fixture
def job(tmp_path):
    """A finished run with a row set aside."""
    a_source(tmp_path / "in", shards=3)
    BatchRunner(the_spec(tmp_path)).run()
    return tmp_path


def the_spec(folder):
    return a_spec(folder, capability="capabilities:fails_on_5", errors={"max_row_errors": 5})


def garbage(job):
    checkpoint = Checkpoint(open_storage(str(job / "out/_checkpoint")))
    return Garbage(checkpoint, sink=open_storage(str(job / "out")))


def litter(job):
    """One of each kind, as the dead leave them; return where."""
    checkpoint = job / "out/_checkpoint"
    dead_letters = next((checkpoint / "errors").iterdir())
    left = {
        job / "out/.staging/abc.tmp": b"half a part",
        checkpoint / ".staging/def.tmp": b"half a record",
        checkpoint / ".staging/def.intents": b'{"errors/part-00001.x.jsonl": "dead_letters"}',
        checkpoint / "errors/part-00001.another.jsonl": dead_letters.read_bytes(),
        checkpoint / "attempts/0123.json": b'{"version":1,"session":"s","shards":[1]}',
        checkpoint / "sessions/0123.stop": b"",
    }
    for path, content in left.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return set(left)


def test_a_finished_run_leaves_nothing(job):
    """It tidies up after itself."""
    assert garbage(job).listed() == []


def test_what_the_dead_left_is_listed_and_nothing_changes(job):
    """A look first."""
    left = litter(job)

    found = garbage(job).listed()

    assert {f"{one.place}/{one.key}" for one in found} == set(map(str, left))
    assert sorted(str(one.kind) for one in found) == [
        "dead_letters",
        "mark",
        *["staged"] * 3,
        "stop",
    ]
    assert all(path.exists() for path in left)


def test_what_the_dead_left_is_removed_and_nothing_else(job):
    """Output, records and rows set aside stay as they are."""
    before = {path for path in job.rglob("*") if path.is_file()}
    left = litter(job)

    removed = garbage(job).remove()

    assert len(removed) == len(left)
    now = {path for path in job.rglob("*") if path.is_file()}
    assert before <= now
    assert not left & now
    assert verify(the_spec(job)).ok
    assert garbage(job).listed() == []


def test_a_run_that_ends_well_leaves_nothing_of_workers_that_died(job):
    """Notes of rows set aside stayed for ever: no run removed them, and `clean` did not list them."""
    (job / "out/_checkpoint/sentinels/part-00002.json").unlink()
    (job / "out/part-00002.jsonl").unlink()
    staging = job / "out/_checkpoint/.staging"
    intents = b'{"errors/part-00002.dead.jsonl": "dead_letters"}'

    class DiesMeanwhile(NoDisplay):
        times = 0

        def show(self, _):
            for name in ("dead.tmp", "dead.intents"):
                (staging / name).write_bytes(intents)
            self.times += 1

    display = DiesMeanwhile()
    assert BatchRunner(the_spec(job)).run(progress=display).ok

    assert display.times > 2
    assert list(staging.iterdir()) == []


def test_nothing_is_removed_beside_a_run(job):
    """What looks dead may be its own."""
    left = litter(job)
    acquire_lease(open_storage(str(job / "out/_checkpoint")), LeaseOwner.this_process("somebody"))

    assert garbage(job).active_lease() is not None
    with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on"):
        garbage(job).remove()

    assert all(path.exists() for path in left)


def test_rows_set_aside_by_a_shard_that_is_not_committed_stay(job):
    """Its worker may be alive for another second, and publish the part that they belong to."""
    (job / "out/_checkpoint/sentinels/part-00001.json").unlink()
    kept = job / "out/_checkpoint/errors/part-00001.another.jsonl"
    kept.write_bytes(b"{}\n")

    garbage(job).remove()

    assert kept.exists()


def test_a_run_goes_on_after_everything_was_cleaned(job):
    """Nothing that was removed is missed."""
    (job / "out/_checkpoint/sentinels/part-00002.json").unlink()
    (job / "out/part-00002.jsonl").unlink()
    litter(job)
    garbage(job).remove()

    assert BatchRunner(the_spec(job)).run().ok
    assert [row["id"] for row in rows_out(job / "out")] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_a_complete_run_is_complete_after_it_was_cleaned_too(job):
    """The session of a clean is the last one, and says nothing of how the run ended."""
    litter(job)
    garbage(job).remove()

    status = status_of(Checkpoint(open_storage(str(job / "out/_checkpoint"))))

    assert (status.state, status.next.split()[1]) == ("complete", "errors")  # row 5 failed


@pytest.mark.parametrize("begin", [["cleaned"], ["repaired", "cleaned", "repaired"]])
def test_a_complete_run_is_complete_after_housekeeping_that_found_nothing(job, begin):
    """`run` again makes no session that could say so: it would be called stopped for good."""
    for what in begin:
        if what == "cleaned":
            garbage(job).remove()
        else:
            assert repair(the_spec(job)).found.ok
    checkpoint = Checkpoint(open_storage(str(job / "out/_checkpoint")))

    report = run_report(checkpoint)

    assert status_of(checkpoint).state == report.verdict.state == "complete"
    kinds = {"cleaned": "clean", "repaired": "repair"}
    assert [session.kind for session in report.sessions][1:] == [kinds[what] for what in begin]


def test_a_repair_that_withdrew_the_output_leaves_a_run_to_go_on_with(job):
    """Each shard is committed, and yet `_SUCCESS` is gone until the next run."""
    shutil.copy(job / "out/part-00000.jsonl", job / "out/part-00077.jsonl")
    assert repair(the_spec(job)).moved == ("part-00077.jsonl",)
    assert not (job / "out/_SUCCESS").exists()
    checkpoint = Checkpoint(open_storage(str(job / "out/_checkpoint")))
    status = status_of(checkpoint)

    assert (status.state, status.next.split()[1]) == ("stopped", "run")
    assert run_report(checkpoint).verdict.state == "stopped"
    assert BatchRunner(the_spec(job)).run().ok
    assert status_of(checkpoint.reopened()).state == "complete"
