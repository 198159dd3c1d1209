"""Two runs want one sink: the second is refused at once, before anything is touched or computed."""

from __future__ import annotations

import json
import shutil

import pytest

from batchrunner import BatchRunner
from batchrunner.driver.opening import open_run
from batchrunner.driver.session import Stop, StopReason, open_session
from batchrunner.driver.survey import take_survey
from batchrunner.errors import ForeignOutputError
from batchrunner.verify import verify
from builders import a_source, a_spec, rows_out

EXPECTED = list(range(0, 24, 2))


@pytest.fixture
def job(tmp_path):
    """A folder of its own in the test's, so that it can be moved."""
    a_source(tmp_path / "job/in")
    return tmp_path / "job"


def run(folder, *, at_once=False, fresh=False, **changes):
    """Run with a checkpoint beside the sink; *at_once* stops it before its first shard."""
    changes = {"checkpoint_dir": str(folder / "ckpt"), **changes}
    stop = Stop(max_runtime=None)
    if at_once:
        stop.request(StopReason.MAX_RUNTIME)
    return BatchRunner(a_spec(folder, **changes)).run(stop=stop, fresh=fresh)


def mark(folder):
    return json.loads((folder / "out/_owner.json").read_bytes())


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "in" not in p.parts}


def test_a_second_run_is_refused_before_anything_is_touched(job):
    """Each got some of the parts; both failed after hours, and neither could go on."""
    first = run(job, at_once=True)
    before = files(job)

    with pytest.raises(ForeignOutputError, match=r"belongs to another run.*/ckpt\n") as refusal:
        run(job, checkpoint_dir=str(job / "other"))

    assert refusal.value.exit_code == 4
    assert f"batchrunner status {job}/ckpt" in str(refusal.value)
    assert files(job) == before
    assert (mark(job)["run_uid"], mark(job)["checkpoint"]) == (first.run_uid, str(job / "ckpt"))
    assert run(job).ok
    assert [row["id"] for row in rows_out(job / "out")] == EXPECTED


def test_of_two_runs_that_saw_an_empty_sink_one_gets_it(job):
    """Both looked before either had begun."""
    spec = a_spec(job, checkpoint_dir=str(job / "other"))
    late = BatchRunner(spec)._run()
    seen = take_survey(late)
    run(job, at_once=True)

    with (
        open_session(late.checkpoint, stop=Stop(max_runtime=None)) as session,
        pytest.raises(ForeignOutputError, match="belongs to another run"),
    ):
        open_run(late, seen, session)

    assert not (job / "other/run.json").exists()
    assert run(job).ok


def test_starting_over_takes_the_mark_over(job):
    """Also where the folder was moved in between, and where it was not known yet."""
    first = run(job)
    second = run(job, fresh=True)
    assert mark(job)["run_uid"] == second.run_uid != first.run_uid

    elsewhere = job.rename(job.parent / "moved")
    assert run(elsewhere, fresh=True).ok

    assert mark(elsewhere)["checkpoint"] == str(elsewhere / "ckpt")
    assert verify(a_spec(elsewhere, checkpoint_dir=str(elsewhere / "ckpt"))).ok


def test_a_run_that_was_moved_half_way_goes_on(job):
    """It is the same run wherever it stands."""
    begun = run(job, at_once=True)
    elsewhere = job.rename(job.parent / "moved")

    assert run(elsewhere).run_uid == begun.run_uid


def test_a_run_whose_checkpoint_is_gone_leaves_the_sink_with_a_way_out(job):
    """The message says what to move away; then the next run has the sink."""
    run(job, at_once=True)
    shutil.rmtree(job / "ckpt")
    with pytest.raises(ForeignOutputError, match=r"move its parts and .*/out/_owner\.json away"):
        run(job, checkpoint_dir=str(job / "other"))

    (job / "out/_owner.json").unlink()

    assert run(job, checkpoint_dir=str(job / "other")).ok


def test_a_checkpoint_that_was_removed_before_the_first_part_is_begun_again(job):
    """The mark names its place, which is this run's own."""
    run(job, at_once=True)
    shutil.rmtree(job / "ckpt")

    assert run(job).ok


def test_a_run_from_before_there_were_marks_gets_one(job):
    """An earlier version left none."""
    begun = run(job, at_once=True)
    (job / "out/_owner.json").unlink()

    assert run(job).ok
    assert mark(job)["run_uid"] == begun.run_uid


def test_a_damaged_mark_is_put_right_by_the_run_that_has_records(job):
    """And refused, by its path, to one that has none."""
    begun = run(job, at_once=True)
    path = job / "out/_owner.json"
    path.write_bytes(path.read_bytes()[:20])

    with pytest.raises(ForeignOutputError, match=rf"{path} is damaged.*\n.*remove it"):
        run(job, checkpoint_dir=str(job / "other"))

    assert run(job).ok
    assert mark(job)["run_uid"] == begun.run_uid
