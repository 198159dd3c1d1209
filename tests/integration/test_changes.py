"""What stands in the way of going on, and what comes of it: nothing is ever lost or mixed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys

import pytest

from batchrunner import BatchRunner
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import (
    CapabilityImportError,
    DamagedOutputError,
    ForeignOutputError,
    InputChangedError,
    InvalidSpecError,
    LeaseHeldError,
    ObjectNotFoundError,
    SpecChangedError,
)
from batchrunner.verify import repair, verify
from builders import a_source, a_spec, parts, rows, rows_out, write_jsonl


@pytest.fixture
def job(tmp_path):
    """A finished run of three shards."""
    a_source(tmp_path / "in", shards=3)
    BatchRunner(echo(tmp_path)).run()
    return tmp_path


def echo(folder, **changes):
    return a_spec(folder, **{"capability": "capabilities:echo", **changes})


def snapshot(folder):
    """Every file below *folder* with its bytes and which file it is."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


def ids(folder):
    return sorted(row["id"] for row in rows_out(folder / "out"))


def refused(job, error, spec=None, **kwargs):
    """Run is refused with *error*, whose message is returned; not a byte of the output changed."""
    before = snapshot(job / "out")
    with pytest.raises(error) as refusal:
        BatchRunner(spec or echo(job)).run(**kwargs)
    assert before == snapshot(job / "out")
    return str(refusal.value)


def test_a_second_run_does_nothing(job):
    """The same line again is the way to go on; when all is done, it touches nothing."""
    before = snapshot(job)

    report = BatchRunner(echo(job)).run()

    assert report.ok
    assert (report.shards_new, report.rows_out) == (0, 12)
    assert before == snapshot(job)


def test_only_pending_shards_run_again(job):
    """Committed parts are not even opened."""
    (job / "out/part-00001.jsonl").unlink()
    (job / "out/_checkpoint/sentinels/part-00001.json").unlink()
    before = snapshot(job / "out")
    calls = job / "calls"
    spec = echo(
        job,
        capability={
            "target": "capabilities:LogsCalls",
            "fn_constructor_kwargs": {"path": str(calls)},
        },
    )

    report = BatchRunner(spec).run(accept_changes=True)

    assert report.shards_new == 1
    assert calls.read_text().split() == ["4", "5", "6", "7"]
    after = snapshot(job / "out")
    assert before["part-00000.jsonl"] == after["part-00000.jsonl"]
    assert before["part-00002.jsonl"] == after["part-00002.jsonl"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"capability": "capabilities:double"}, "capability.target"),
        ({"capability": {"target": "capabilities:echo", "mode": "row"}}, "capability.mode"),
        ({"source": {"uri": "in", "limit": 5}}, "source.limit"),
        ({"sink": {"uri": "out", "compression": "gz"}}, "sink.compression"),
        ({"execution": {"engine": "local", "batch_format": "numpy"}}, "execution.batch_format"),
    ],
)
def test_another_spec_is_refused_with_the_difference(job, monkeypatch, changes, named):
    """Half an output of one capability and half of another would be the output of neither."""
    monkeypatch.chdir(job)

    assert named in refused(job, SpecChangedError, echo(job, **changes))


def stopped_at_once(spec):
    stop = Stop(max_runtime=None)
    stop.request(StopReason.MAX_RUNTIME)
    return BatchRunner(spec).run(stop=stop)


@pytest.mark.parametrize(
    "changes",
    [
        {"capability": "capabilities:double"},
        {"sink": {"uri": "out", "format": "parquet"}},
        {"source": {"uri": "in", "shard": {"rows": 1}}},
    ],
)
def test_while_nothing_is_committed_another_spec_begins_the_run_anew(
    tmp_path, monkeypatch, caplog, changes
):
    """There is nothing that it could be mixed with; and the plan was made as the old spec was."""
    monkeypatch.chdir(tmp_path)
    a_source(tmp_path / "in")
    first = stopped_at_once(echo(tmp_path))

    report = BatchRunner(echo(tmp_path, **changes)).run()

    assert (report.ok, report.rows_out) == (True, 12)
    assert report.run_uid != first.run_uid
    assert "nothing was committed before the spec or the code changed" in caplog.text
    assert verify(echo(tmp_path, **changes)).ok
    assert BatchRunner(echo(tmp_path, **changes)).run().shards_new == 0


def test_a_capability_that_could_not_be_imported_may_be_mended(tmp_path, monkeypatch):
    """The same line was refused after the fix of a typing error, though no shard had begun."""
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "mended_later.py"
    code.write_text("import a_module_that_is_not_there\ndef up(rows):\n    return rows\n")
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability="mended_later:up")
    with contextlib.suppress(CapabilityImportError):
        assert not BatchRunner(spec).run().ok

    code.write_text("def up(rows):\n    return rows\n")

    assert BatchRunner(spec).run().ok


@pytest.mark.parametrize("left", ["sentinel", "part"])
def test_what_a_worker_left_keeps_another_spec_from_beginning_anew(job, left):
    """A part without its sentinel is work that the next driver may still finish."""
    out = job / "out"
    for path in [*out.glob("_checkpoint/sentinels/*"), *parts(out), out / "_SUCCESS"]:
        if path.name not in {"sentinel": ("part-00001.json",), "part": ("part-00001.jsonl",)}[left]:
            path.unlink()

    refused(job, SpecChangedError, echo(job, capability="capabilities:double"))


def test_what_does_not_decide_the_output_may_change(job):
    """More workers, other batches, another name: the same rows come out."""
    execution = {"engine": "local", "batch_size": 2, "concurrency": 5, "num_cpus": 2}

    report = BatchRunner(echo(job, name="other", execution=execution, tags={"a": "b"})).run()

    assert (report.ok, report.shards_new) == (True, 0)


def test_changed_code_is_refused_and_changed_comments_are_not(tmp_path, monkeypatch):
    """A fix of the capability changes the rows that are still to come."""
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "mycaps.py"
    code.write_text("def up(rows):\n    return rows\n")
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability="mycaps:up")
    BatchRunner(spec).run()

    code.write_text("# a comment\ndef up(rows):\n\n    return (rows)\n")
    BatchRunner(spec).run()
    code.write_text("def up(rows):\n    return rows[:1]\n")

    assert "capability.code: mycaps.py: up changed" in refused(tmp_path, SpecChangedError, spec)


def test_where_rows_wait_for_mended_code_the_refusal_names_retry(tmp_path, monkeypatch):
    """A user who mended the code and ran again was asked to undo it, or to start over."""
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "mended_rows.py"
    code.write_text("def up(row):\n    return {**row, 'half': 1 // (row['id'] - 5)}\n")
    a_source(tmp_path / "in")
    capability = {"target": "mended_rows:up", "mode": "row"}
    spec = a_spec(tmp_path, capability=capability, errors={"max_row_errors": 5})
    assert BatchRunner(spec).run().rows_failed == 1
    code.write_text("def up(row):\n    return {**row, 'half': 0}\n")

    said = refused(tmp_path, SpecChangedError, spec)

    assert "1 rows failed" in said
    assert "`batchrunner retry --rows SPEC`" in said
    assert "another job" not in said
    del sys.modules["mended_rows"]  # as in a new process
    assert BatchRunner(spec).retry(rows=True).rows_failed == 0


def test_where_rows_wait_for_a_mended_spec_each_refusal_names_the_retry_that_takes_it(tmp_path):
    """The line that it named, `run --accept-changes`, left the rows as they were."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("id,n\n1,5\n2,NA\n3,7\n")
    source = {"uri": str(tmp_path / "in"), "format": "csv", "schema": {"n": "int64"}}
    spec = echo(tmp_path, source=source, errors={"max_row_errors": 5})
    assert BatchRunner(spec).run().rows_failed == 1
    spec = echo(tmp_path, source={**source, "format_options": {"nulls": ["NA"]}})

    for again in (BatchRunner(spec).run, lambda: BatchRunner(spec).retry(rows=True)):
        with pytest.raises(SpecChangedError) as refusal:
            again()
        assert "`batchrunner retry --rows --accept-changes SPEC`" in str(refusal.value)
    report = BatchRunner(spec).retry(rows=True, accept_changes=True)
    assert (report.ok, report.rows_failed, report.rows_out) == (True, 0, 3)


@pytest.mark.parametrize("change", [{"capability": "capabilities:double"}, {"name": "other"}])
def test_another_job_for_the_same_sink_is_asked_to_take_another(job, change):
    """Each way out that was named would have mixed two jobs, or ended the first."""
    spec = echo(job, source={"uri": str(job / "in"), "limit": 5}, **change)

    said = refused(job, SpecChangedError, spec)

    assert "If this is another job, give it another sink." in said
    assert "retry" not in said


def test_a_version_stands_in_for_the_code(tmp_path, monkeypatch):
    """A user who refactors a capability may say that its output is the same."""
    monkeypatch.syspath_prepend(tmp_path)
    code = tmp_path / "versioned.py"
    code.write_text("def up(rows):\n    return rows\n")
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability={"target": "versioned:up", "version": "1"})
    BatchRunner(spec).run()

    code.write_text("def up(rows):\n    return list(rows)\n")

    assert BatchRunner(spec).run().ok


def test_an_accepted_change_goes_on_and_is_recorded(job):
    """Who accepted what stands in the checkpoint, and the next run needs no flag."""
    shutil.rmtree(job / "out/_checkpoint/sentinels")
    for part in parts(job / "out"):
        part.unlink()
    spec = a_spec(job, capability="capabilities:double")

    BatchRunner(spec).run(accept_changes=True)

    change = json.loads((job / "out/_checkpoint/changes/0001.json").read_text())
    assert "double" in change["decisive"]["capability.target"]
    assert change["created_by"]
    assert ids(job) == [2 * n for n in range(12)]
    assert BatchRunner(spec).run().ok


def test_fresh_starts_over(job):
    """Old parts and old sentinels go together."""
    spec = a_spec(job, capability="capabilities:double")

    report = BatchRunner(spec).run(fresh=True)

    assert (report.shards_new, ids(job)) == (3, [2 * n for n in range(12)])
    assert BatchRunner(spec).run().shards_new == 0


def test_fresh_removes_nothing_when_it_cannot_start(job):
    """A typo in the source must not cost yesterday's output."""
    spec = echo(job, source=str(job / "typo"))

    refused(job, ObjectNotFoundError, spec, fresh=True)


def test_without_resume_every_run_starts_over(job):
    """`resume: false` is `--fresh` in the spec."""
    assert BatchRunner(echo(job, resume=False)).run().shards_new == 3


def test_a_new_file_gets_new_shards_with_the_next_ids(job):
    """Nothing is renumbered, whatever the new file's name."""
    before = snapshot(job / "out")
    write_jsonl(job / "in/a-first.jsonl", rows(100, 2))

    report = BatchRunner(echo(job)).run()

    after = snapshot(job / "out")
    assert (report.shards, report.shards_new) == (4, 1)
    assert all(before[f"part-0000{n}.jsonl"] == after[f"part-0000{n}.jsonl"] for n in range(3))
    assert ids(job) == [*range(12), 100, 101]
    assert [
        part["source"] for part in json.loads((job / "out/_manifest.json").read_text())["parts"]
    ][3].endswith("a-first.jsonl")


def test_a_changed_file_gets_new_shards_and_its_old_parts_go_aside(job):
    """A published part never changes; an outdated one leaves once its successor is there."""
    write_jsonl(job / "in/in-001.jsonl", rows(50, 3))

    report = BatchRunner(echo(job)).run()

    assert (report.shards, report.shards_new) == (3, 1)
    assert ids(job) == [0, 1, 2, 3, 8, 9, 10, 11, 50, 51, 52]
    assert (job / "out/_retired/part-00001.jsonl").exists()
    assert [path.name for path in parts(job / "out")] == [
        "part-00000.jsonl",
        "part-00002.jsonl",
        "part-00003.jsonl",
    ]
    assert BatchRunner(echo(job)).run().shards_new == 0


def test_a_failed_successor_leaves_the_retired_part_in_place(job):
    """A reader of the sink finds all rows of one version or the other."""
    write_jsonl(job / "in/in-001.jsonl", [{"id": "not a number", "text": None}])

    report = BatchRunner(echo(job, capability="capabilities:double")).run(accept_changes=True)

    assert report.ok  # "not a number" * 2 is a string in Python
    assert not (job / "out/part-00001.jsonl").exists()


def test_a_vanished_file_is_refused_until_accepted(job):
    """A disk may have been unmounted; or the user may mean it."""
    (job / "in/in-001.jsonl").unlink()
    assert "in-001.jsonl" in refused(job, InputChangedError)

    BatchRunner(echo(job)).run(accept_changes=True)

    assert ids(job) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert (job / "out/_retired/part-00001.jsonl").exists()


def test_a_deleted_part_is_refused_with_its_name(job):
    """Its sentinel says that it is there; the user has to hear that it is not."""
    (job / "out/part-00001.jsonl").unlink()

    assert "part-00001.jsonl: the part is gone" in refused(job, DamagedOutputError)


def test_a_truncated_part_is_refused_with_its_name(job):
    """One byte less is enough."""
    part = job / "out/part-00001.jsonl"
    os.truncate(part, part.stat().st_size - 1)

    assert "part-00001.jsonl: it has" in refused(job, DamagedOutputError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\x00" * 100])
def test_a_torn_sentinel_is_refused(job, content):
    """We never write one; whatever did may have done more."""
    (job / "out/_checkpoint/sentinels/part-00001.json").write_bytes(content)

    assert "part-00001.json is damaged" in refused(job, DamagedOutputError)


def test_a_sentinel_of_a_later_version_is_refused_by_name(job):
    """A newer batchrunner wrote it: this one cannot judge it."""
    path = job / "out/_checkpoint/sentinels/part-00001.json"
    path.write_bytes(re.sub(rb'"version":\d', b'"version":7', path.read_bytes()))

    assert "format version 7" in refused(job, DamagedOutputError)


def test_a_sentinel_of_another_run_is_refused(job, tmp_path_factory):
    """Copied by hand, it would vouch for rows that it knows nothing of."""
    other = tmp_path_factory.mktemp("other")
    a_source(other / "in", shards=3)
    BatchRunner(echo(other)).run()
    name = "out/_checkpoint/sentinels/part-00001.json"
    shutil.copy(other / name, job / name)
    shutil.rmtree(job / "out/_checkpoint/sentinel_index")

    assert "of another run" in refused(job, DamagedOutputError)


def test_a_foreign_part_is_refused_and_never_deleted(job):
    """It may be all that is left of something."""
    (job / "out/part-00099.jsonl").write_text("{}\n")

    assert "part-00099.jsonl" in refused(job, ForeignOutputError)


def test_a_foreign_part_under_the_name_of_a_pending_shard_is_refused(job):
    """No attempt of ours left a note for it."""
    (job / "out/_checkpoint/sentinels/part-00001.json").unlink()
    (job / "out/part-00001.jsonl").write_text("{}\n")
    before = (job / "out/part-00001.jsonl").read_text()

    with pytest.raises(
        ForeignOutputError, match=r"(?s)1 part\(s\) that no record.*part-00001\.jsonl"
    ):
        BatchRunner(echo(job)).run()

    assert before == (job / "out/part-00001.jsonl").read_text()


def test_parts_without_their_sentinels_are_named_all_at_once_with_the_way_out(job):
    """Where each run named one, a user moved a hundred of them by hand, with a run after each."""
    shutil.rmtree(job / "out/_checkpoint/sentinels")
    shutil.rmtree(job / "out/_checkpoint/sentinel_index")
    before = {path.read_bytes() for path in parts(job / "out")}

    with pytest.raises(ForeignOutputError) as refusal:
        BatchRunner(echo(job)).run()
    said = str(refusal.value)

    assert all(name in said for name in ("3 part(s)", "part-00000.jsonl", "part-00002.jsonl"))
    assert "`batchrunner verify --repair SPEC`" in said
    assert len(repair(echo(job)).moved) == 3
    assert (BatchRunner(echo(job)).run().shards_new, ids(job)) == (3, list(range(12)))
    assert {path.read_bytes() for path in job.glob("out/_damaged/*/part-*")} == before


def test_other_files_in_the_sink_are_left_alone(job):
    """A README is no part."""
    (job / "out/README.md").write_text("hello")

    assert BatchRunner(echo(job)).run().ok


def test_the_output_of_another_run_is_not_written_into(job):
    """Parts without their checkpoint: whose are they?"""
    shutil.rmtree(job / "out/_checkpoint")

    assert "the output of another run" in refused(job, ForeignOutputError)


@pytest.mark.parametrize("sink", ["in", "in/out", "."])
def test_a_sink_that_would_be_read_as_source_is_refused(tmp_path, sink):
    """The second run would read the output of the first."""
    a_source(tmp_path / "in")
    spec = echo(tmp_path, sink=str(tmp_path / sink))
    if sink == ".":
        spec = echo(tmp_path, source=str(tmp_path), sink=str(tmp_path))

    with pytest.raises(InvalidSpecError, match="lies in the source"):
        BatchRunner(spec).run()


def test_a_driver_that_runs_keeps_others_out(job, monkeypatch):
    """The second one is refused with the name of the first, and leaves everything alone."""
    from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease
    from batchrunner.storage import open_storage

    write_jsonl(job / "in/more.jsonl", rows(100, 2))
    checkpoint = open_storage(str(job / "out/_checkpoint"))
    acquire_lease(checkpoint, LeaseOwner.this_process("somebody"))

    with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on"):
        BatchRunner(echo(job)).run()

    assert ids(job) == list(range(12))


def test_a_file_that_changes_while_it_is_read_fails_its_shard(tmp_path):
    """Half of the old rows and half of the new ones would be rows of no file."""
    a_source(tmp_path / "in", shards=2)
    changed = []

    def meddle(batch):
        if not changed:
            changed.append(1)
            write_jsonl(tmp_path / "in/in-000.jsonl", rows(70, 9))
        return batch

    first = BatchRunner(a_spec(tmp_path, capability=None), capability=meddle).run()
    second = BatchRunner(a_spec(tmp_path, capability=None), capability=meddle).run()

    assert ids(tmp_path) == [4, 5, 6, 7, *range(70, 79)]
    assert second.ok
    assert first.ok or "not the file that was listed" in str(first.failures)


def test_a_run_that_was_cleared_half_way_is_cleared_on(job):
    """Death between the removal of parts and of sentinels leaves a mark, not a riddle."""
    (job / "out/_checkpoint/clearing.json").write_text("{}")
    (job / "out/part-00001.jsonl").unlink()

    report = BatchRunner(echo(job)).run()

    assert (report.shards_new, ids(job)) == (3, list(range(12)))
