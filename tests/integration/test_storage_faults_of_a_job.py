"""A small job, each of whose calls of storage fails in every way: correct, or stopped and resumable."""

from __future__ import annotations

import uuid

import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.errors import BatchRunnerError, StorageError
from batchrunner.storage import open_storage
from batchrunner.testing.faulty import FaultKind, Faults, faulty_scheme
from batchrunner.verify import repair, verify
from builders import rows
from golden import lines

pytestmark = pytest.mark.sweep

EXPECTED = rows(0, 8)
EVERY = {FaultKind.DELAY: 5}


class Job:
    """Two shards of four rows, in memory; the first loses a row that cannot be read."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or uuid.uuid4().hex
        store = open_storage(f"memory://{self.name}")
        store.put("in/0.jsonl", lines(EXPECTED[:4]) + b"not a row\n")
        store.put("in/1.jsonl", lines(EXPECTED[4:]))
        self.spec = BatchSpec(
            capability="capabilities:echo",
            source=f"memory://{self.name}/in",
            sink=f"memory://{self.name}/out",
            execution={"engine": "local"},
            errors={"max_row_errors": 1},
        )

    def run(self, faults: Faults) -> bool:
        """Return whether it got to its end."""
        with faulty_scheme("memory", faults):
            return self.ends(lambda: BatchRunner(self.spec).run().ok)

    def ends(self, work) -> bool:
        try:
            return work()
        except BatchRunnerError as error:
            assert isinstance(error, StorageError), error  # noqa: PT017 - what kind is the claim
            return False

    def finish(self) -> None:
        """Run without faults; then everything is there, once."""
        report = BatchRunner(self.spec).run()
        assert report.ok, report
        out = open_storage(self.spec.sink.uri)
        parts = [entry.key for entry in out.list() if entry.key.startswith("part-")]
        assert b"".join(out.get(part) for part in parts) == lines(EXPECTED)
        assert out.head("_SUCCESS")
        seen = verify(self.spec)
        assert seen.ok, seen.findings
        assert (seen.rows_in, seen.rows_out, seen.rows_failed) == (9, 8, 1)


def calls_of(work) -> int:
    faults = Faults()
    work(faults)
    return len(faults.calls)


@pytest.mark.parametrize("kind", FaultKind)
def test_whatever_call_of_a_run_fails_it_ends_right_or_goes_on_right(kind):
    """Lost answers and torn writes included."""
    calls = calls_of(Job().run)
    assert calls > 40
    for at in range(1, calls + 1, EVERY.get(kind, 1)):
        job, faults = Job(), Faults(at=at, kind=kind)
        ended = job.run(faults)
        if ended:
            assert faults.fired or at > calls - 10, f"call {at}"
        job.finish()


@pytest.mark.parametrize("kind", [FaultKind.FAIL, FaultKind.LOST])
def test_a_store_that_stays_down_stops_the_run_wherever_it_was(kind):
    """And when it is back, the same line goes on."""
    calls = calls_of(Job().run)
    for at in range(1, calls + 1, 2):
        job = Job()
        job.run(Faults(at=at, kind=kind, lasts=True))
        job.finish()


@pytest.mark.parametrize("kind", [FaultKind.FAIL, FaultKind.LOST, FaultKind.TORN])
def test_whatever_call_of_a_repair_fails_it_can_be_done_again(kind):
    """A user who repairs has had one accident already."""
    job = Job()
    job.finish()
    harm(job)

    def mend(faults):
        with faulty_scheme("memory", faults):
            return job.ends(lambda: bool(repair(job.spec).to_recompute))

    calls = calls_of(mend)
    for at in range(1, calls + 1, 2):
        job = Job()
        job.finish()
        harm(job)
        mend(Faults(at=at, kind=kind))
        if not verify(job.spec).ok:
            repair(job.spec)
        job.finish()


def harm(job: Job) -> None:
    out = open_storage(job.spec.sink.uri)
    out.put("part-00000.jsonl", b"x" + out.get("part-00000.jsonl")[1:])
    out.delete(["part-00001.jsonl"])
    out.put("part-00005.jsonl", b"{}\n")
