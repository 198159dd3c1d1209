"""A file that was touched, copied or checked out again is the file that it was; one with other bytes is not."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import plan_file
from batchrunner.driver.opening import open_run
from batchrunner.driver.session import Stop, open_session
from batchrunner.driver.survey import take_survey
from batchrunner.errors import SpecChangedError
from batchrunner.verify import verify
from builders import a_spec, parts, rows, rows_out

SOURCES = {
    "jsonl": {"shard": {"bytes": 4096}},
    "jsonl.gz": {},
    "jsonl.zst": {},
    "parquet": {"shard": {"row_groups": 1}},
    "parquet whole": {},
    "parquet rows": {"shard": {"rows": 170}},
    "parquet columns": {"shard": {"row_groups": 1}, "columns": ["id"]},
    "jsonl limit": {"limit": 450},
    "jsonl.gz limit": {"limit": 450},
    "json": {},
    "json cut": {"shard": {"bytes": 4096}},
    "json limit": {"limit": 450},
    "arrow": {},
    "arrow batches": {"shard": {"bytes": 4096}},
    "arrow rows": {"shard": {"rows": 170}},
    "arrow columns": {"shard": {"bytes": 4096}, "columns": ["id"]},
    "arrows": {},
    "arrows limit": {"limit": 450},
}
ROWS = 600
PLAIN = {"compression": "none", "use_dictionary": False}


@pytest.fixture(params=SOURCES)
def job(request, tmp_path):
    """A run over two files, not begun."""
    return Job(tmp_path, request.param)


class Job:
    """A folder with a source, and runs of it that count the calls of the capability."""

    def __init__(self, folder, kind="jsonl"):
        self.folder, self.kind, self.calls = folder, kind.partition(" ")[0], 0
        self.options = SOURCES[kind]
        for number in range(2):
            self.write(number, rows(number * ROWS, ROWS))

    def path(self, number):
        return self.folder / f"in/{number}.{self.kind}"

    def write(self, number, content):
        path = self.path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in content).encode()
        if self.kind == "parquet":
            pq.write_table(pa.Table.from_pylist(content), path, row_group_size=150, **PLAIN)
        elif self.kind.startswith("arrow"):
            table = pa.Table.from_pylist(content)
            new = pa.ipc.new_file if self.kind == "arrow" else pa.ipc.new_stream
            with new(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=150)
        elif self.kind == "json":
            path.write_text(json.dumps(content, indent=1))
        elif self.kind == "jsonl.gz":
            path.write_bytes(gzip.compress(text, mtime=0))
        elif self.kind == "jsonl.zst":
            path.write_bytes(pa.compress(text, "zstd", asbytes=True))
        else:
            path.write_bytes(text)

    def spec(self, **changes):
        source = {"uri": str(self.folder / "in"), **self.options}
        fields = {"capability": {"target": "capabilities:double", "version": "1"}}
        return a_spec(self.folder, **fields, **{"source": source, **changes})

    def run(self, *, failing=(), **how):
        def double(batch):
            self.calls += 1
            if any(row["id"] in failing for row in batch):
                raise ValueError("it fails today")
            return [{**row, "id": 2 * row["id"]} for row in batch]

        return BatchRunner(self.spec(), capability=double).run(**how)

    def plan(self):
        return BatchRunner(self.spec()).plan()

    def touch(self):
        """Give every file of the source another time."""
        for path in (self.folder / "in").iterdir():
            os.utime(path, ns=(1, path.stat().st_mtime_ns + 12_345))

    def output(self):
        """The parts, and which files they are."""
        return {
            path.name: (path.read_bytes(), path.stat().st_ino)
            for path in parts(self.folder / "out")
        }

    def generations(self):
        return sorted(path.name for path in (self.folder / "out/_checkpoint/plan").iterdir())

    def ids(self):
        return sorted(row["id"] for row in rows_out(self.folder / "out"))


def records(folder):
    return {p: (p.read_bytes(), p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


def test_touched_files_are_not_computed_again(job):
    """A checkout or a copy that cost a whole run of GPUs would be taken for a defect."""
    first = job.run()
    before, ids, job.calls = job.output(), job.ids(), 0
    job.touch()

    report = job.run()

    assert first.shards_new >= 1
    assert (report.ok, report.shards_new, report.shards, job.calls) == (True, 0, first.shards, 0)
    assert (job.output(), job.ids()) == (before, ids)
    assert not (job.folder / "out/_retired").exists()
    assert verify(job.spec()).ok


def test_what_was_compared_is_remembered(job):
    """The next run reads no source file, and writes nothing."""
    job.run()
    job.touch()
    job.run()
    before = records(job.folder)

    assert job.plan().notes == ()
    assert job.run().shards_new == 0
    assert records(job.folder) == before


def test_one_byte_of_other_content_under_the_same_size_is_computed_again(tmp_path):
    """Whatever the time says: another row is another row."""
    for kind in ("jsonl", "parquet"):
        job = Job(tmp_path / kind, kind)
        first = job.run()
        before, size = job.output(), job.path(1).stat().st_size
        changed = rows(ROWS, ROWS)
        changed[7] = {**changed[7], "text": "Row 607"}
        job.write(1, changed)
        assert job.path(1).stat().st_size == size
        os.utime(job.path(0))

        report = job.run()

        assert report.ok
        assert report.shards == first.shards
        assert report.shards_new > 0
        assert job.ids() == sorted(2 * n for n in range(2 * ROWS))
        assert sum(row["text"] == "Row 607" for row in rows_out(job.folder / "out")) == 1
        kept = [name for name in before if job.output().get(name) == before[name]]
        assert len(kept) == len(before) - report.shards_new > 0
        assert verify(job.spec()).ok


def test_plan_says_what_was_compared_and_writes_nothing(tmp_path):
    """A user who sees new times wants to know before anything starts."""
    job = Job(tmp_path, "jsonl")
    report = job.run()
    job.touch()
    before = records(job.folder)

    seen = job.plan()

    assert seen.notes == (
        f"2 files have another time and the same bytes (compared {report.shards} committed slices)",
    )
    assert seen.pending == ()
    assert records(job.folder) == before


@pytest.mark.parametrize("text", ["ROW 1199", "another size"])
def test_a_changed_file_is_named_in_the_plan_and_in_the_report(tmp_path, text):
    """Of the same size as before, or of another: a user who sees its shards run again asks why."""
    job = Job(tmp_path, "jsonl")
    job.run()
    job.write(1, [*rows(ROWS, ROWS - 1), {"id": 1199, "text": text}])

    (note,) = job.plan().notes

    assert note == f"1 file changed: {job.folder}/in/1.jsonl"
    job.run()
    assert job.plan().notes == ()
    assert [one.changes for one in BatchRunner(job.spec()).report().sessions] == [(), (note,)]


def test_a_success_stands_while_new_times_are_noted(tmp_path):
    """Nothing of the output changes; a reader that waits for it must not see it go."""
    job = Job(tmp_path, "jsonl")
    job.run()
    job.touch()
    seen = []

    class Sink:
        def __init__(self, storage):
            self._storage = storage

        def __getattr__(self, name):
            return getattr(self._storage, name)

        def delete_exactly(self, entries):
            seen.extend(entries)

    run = BatchRunner(job.spec())._run()
    run = replace(run, sink=Sink(run.sink))
    with open_session(run.checkpoint, stop=Stop(max_runtime=None)) as session:
        open_run(run, take_survey(run, accept_changes=True), session)

    assert seen == []
    assert job.generations() == ["0000.parquet", "0001.parquet"]


def test_a_run_that_died_after_the_new_times_were_noted_goes_on(tmp_path):
    """The generation of the plan is all that there is to write: with it, all is as before."""
    job = Job(tmp_path, "jsonl")
    job.run()
    job.touch()
    run = BatchRunner(job.spec())._run()
    with open_session(run.checkpoint, stop=Stop(max_runtime=None)) as session:
        open_run(run, take_survey(run, accept_changes=True), session)
    job.calls, before = 0, job.output()

    report = job.run(accept_changes=True)

    assert (report.ok, report.shards_new, job.calls) == (True, 0, 0)
    assert job.output() == before
    assert job.generations() == ["0000.parquet", "0001.parquet"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_half_done_run_goes_on_after_a_touch(tmp_path, kind):
    """What is committed stays; what is not is read under its new time."""
    job = Job(tmp_path, kind)
    first = job.run()
    for n in (0, first.shards - 1):
        (path,) = (job.folder / "out").glob(f"part-{n:05d}*")
        path.unlink()
        (job.folder / f"out/_checkpoint/sentinels/part-{n:05d}.json").unlink()
    (job.folder / "out/_SUCCESS").unlink()
    before, job.calls = job.output(), 0
    job.touch()

    report = job.run()

    assert (report.ok, report.shards, report.shards_new) == (True, first.shards, 2)
    assert before.items() <= job.output().items()
    assert job.ids() == [2 * n for n in range(2 * ROWS)]
    assert verify(job.spec()).ok


def test_rows_that_failed_are_tried_again_after_a_touch(tmp_path):
    """They are read from the file that they failed in, under its new time."""
    job = Job(tmp_path, "jsonl")
    job.run(failing=(3, 950))
    assert len(job.ids()) == 2 * ROWS - 2
    job.touch()

    report = BatchRunner(job.spec()).retry(rows=True, accept_changes=True)

    assert (report.shards_new, report.rows_failed) == (2, 0)
    assert job.ids() == [2 * n for n in range(2 * ROWS)]
    assert job.plan().notes == ()
    assert verify(job.spec()).ok


def test_a_touch_again_after_rows_were_tried_again(tmp_path):
    """Shards of rows tried again have no hash of their own; that of their origin counts."""
    job = Job(tmp_path, "jsonl")
    job.run(failing=(3,))
    BatchRunner(job.spec()).retry(rows=True, accept_changes=True)
    job.touch()

    report = BatchRunner(job.spec()).run()

    assert (report.ok, report.shards_new) == (True, 0)


def test_without_a_hash_a_touched_file_is_taken_for_a_changed_one(tmp_path, monkeypatch):
    """As runs of earlier versions left it: nothing vouches for the bytes."""
    monkeypatch.setattr("batchrunner.worker.reading._hash", lambda *_: None)
    job = Job(tmp_path, "jsonl")
    first = job.run()
    job.touch()

    report = job.run()

    assert (report.ok, report.shards_new) == (True, first.shards)
    assert job.ids() == [2 * n for n in range(2 * ROWS)]


def test_shards_without_output_keep_their_hash(tmp_path):
    """They are committed by the driver, once another shard has fixed the schema of the tables."""
    job = Job(tmp_path, "parquet")
    calls = []

    def late(rows):
        calls.append(rows)
        return [row for row in rows if row["id"] >= 2 * ROWS - 150]

    runner = BatchRunner(job.spec(), capability=late)
    first = runner.run()
    sentinels = [json.loads(p.read_bytes()) for p in job.folder.glob("out/_checkpoint/sentinels/*")]
    assert sum(sentinel["rows_out"] == 0 for sentinel in sentinels) > 1
    job.touch()
    calls.clear()

    report = runner.run()

    assert (first.ok, report.ok, report.shards_new, calls) == (True, True, 0, [])


def runs_in(folder, monkeypatch, **changes):
    """A spec with relative paths, as a user runs it who stands in *folder*."""
    monkeypatch.chdir(folder)
    source = {"uri": "in", "shard": {"bytes": 4096}}
    fields = {"capability": "capabilities:double", "source": source, "sink": "out"}
    return a_spec(folder, **{**fields, **changes})


@pytest.mark.parametrize("carry", [shutil.move, shutil.copytree], ids=["moved", "copied"])
@pytest.mark.parametrize("changes", [{}, {"checkpoint_dir": "state/ck"}], ids=["inside", "beside"])
def test_a_job_folder_may_be_moved_or_copied(tmp_path, monkeypatch, carry, changes):
    """Source, sink and checkpoint moved together: nothing of the run changed."""
    job = Job(tmp_path / "job")
    first = BatchRunner(runs_in(job.folder, monkeypatch, **changes)).run()
    before = {name: data for name, (data, _) in job.output().items()}
    monkeypatch.chdir(tmp_path)
    if carry is shutil.copytree:
        carry(tmp_path / "job", tmp_path / "other/job2", copy_function=shutil.copy)  # new times
    else:
        (tmp_path / "other").mkdir()
        carry(tmp_path / "job", tmp_path / "other/job2")
    job.folder = tmp_path / "other/job2"
    spec = runs_in(job.folder, monkeypatch, **changes)
    assert verify(spec).ok

    report = BatchRunner(spec).run()

    assert (report.ok, report.shards_new, report.shards) == (True, 0, first.shards)
    assert {name: data for name, (data, _) in job.output().items()} == before
    assert verify(spec).ok
    assert BatchRunner(spec).plan().notes == ()


def test_a_moved_run_grows_and_moves_again(tmp_path, monkeypatch):
    """Each generation of the plan knows the place that it was made in."""
    folder = tmp_path / "a/job"
    job = Job(folder)
    BatchRunner(runs_in(folder, monkeypatch)).run()
    for number, place in enumerate(("b/job", "c/renamed"), start=2):
        monkeypatch.chdir(tmp_path)
        (tmp_path / place).parent.mkdir(exist_ok=True)
        job.folder = job.folder.rename(tmp_path / place)
        job.write(number, rows(number * ROWS, ROWS))
        spec = runs_in(job.folder, monkeypatch)

        report = BatchRunner(spec).run()

        assert report.ok
        assert 0 < report.shards_new < report.shards
        assert job.ids() == [2 * n for n in range((number + 1) * ROWS)]
        assert verify(spec).ok
    monkeypatch.chdir(tmp_path)
    job.folder = job.folder.rename(tmp_path / "d")
    spec = runs_in(job.folder, monkeypatch)
    assert verify(spec).ok
    assert BatchRunner(spec).run().shards_new == 0


def test_a_source_that_moved_alone_is_a_change(tmp_path, monkeypatch):
    """It may be other data; the user has to say so."""
    job = Job(tmp_path / "job")
    BatchRunner(runs_in(job.folder, monkeypatch)).run()
    (job.folder / "in").rename(job.folder / "in2")
    spec = runs_in(job.folder, monkeypatch, source={"uri": "in2", "shard": {"bytes": 4096}})

    with pytest.raises(SpecChangedError, match=r"source\.uri"):
        BatchRunner(spec).run()


def test_a_sink_that_is_another_one_is_a_change(tmp_path, monkeypatch):
    """The checkpoint is where it was: nothing moved, the spec was edited."""
    job = Job(tmp_path / "job")
    ck = str(tmp_path / "ck")
    BatchRunner(runs_in(job.folder, monkeypatch, checkpoint_dir=ck)).run()

    with pytest.raises(SpecChangedError, match=r"sink\.uri"):
        BatchRunner(
            runs_in(job.folder, monkeypatch, checkpoint_dir=ck, sink=str(tmp_path / "b/out"))
        ).run()


def test_a_moved_sink_leaves_a_source_elsewhere_where_it_is(tmp_path, monkeypatch):
    """The data set stays; only the job's folder was renamed."""
    job = Job(tmp_path / "data")
    source = {"uri": str(tmp_path / "data/in"), "shard": {"bytes": 4096}}
    (tmp_path / "job").mkdir()
    BatchRunner(runs_in(tmp_path / "job", monkeypatch, source=source)).run()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job").rename(tmp_path / "job2")
    spec = runs_in(tmp_path / "job2", monkeypatch, source=source)

    assert BatchRunner(spec).run().shards_new == 0
    assert verify(spec).ok
    assert job.path(0).exists()


@pytest.mark.parametrize("files", ["w/a.bin", "w/*.bin", "w"])
def test_weights_in_a_job_folder_may_be_moved_with_it(tmp_path, monkeypatch, files):
    """They hold what they held; those outside of the folder are called what they were called."""
    job = Job(tmp_path / "job")
    weights(job.folder / "w", a=b"1", b=b"2")
    weights(tmp_path / "shared", c=b"3")
    capability = {"target": "capabilities:double", "files": [files, str(tmp_path / "shared")]}
    BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()
    monkeypatch.chdir(tmp_path)
    job.folder = job.folder.rename(tmp_path / "job2")
    spec = runs_in(job.folder, monkeypatch, capability=capability)

    assert BatchRunner(spec).run().shards_new == 0
    weights(job.folder / "w", a=b"other")
    with pytest.raises(SpecChangedError) as refused:
        BatchRunner(spec).run()
    assert f"\n  capability.files: {job.folder}/w/a.bin: changed\nNothing" in str(refused.value)


@pytest.mark.parametrize(
    "files", [["{a}/w.bin", "{b}/w.bin", "in.bin"], ["../along.bin", "{a}/w.bin"]], ids=str
)
def test_weights_around_a_job_that_moves_stay_what_they_are(tmp_path, monkeypatch, files):
    """The folders around it have other names, too: one file of them moved, the others did not."""
    a, b = tmp_path / "a", tmp_path / "b"
    job = Job(a / "job")
    weights(a, w=b"1", along=b"2")
    weights(b, w=b"3")
    weights(job.folder, **{"in": b"4"})
    files = [file.format(a=a, b=b) for file in files]
    capability = {"target": "capabilities:double", "files": files}
    BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()
    monkeypatch.chdir(tmp_path)
    job.folder = job.folder.rename(b / "job")
    (a / "along.bin").rename(b / "along.bin")

    report = BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()

    assert report.shards_new == 0


def test_a_job_may_move_into_a_folder_of_its_own_name(tmp_path, monkeypatch):
    """A file is then called what another was called before."""
    job = Job(tmp_path / "f")
    weights(job.folder, w=b"1")
    weights(job.folder / "f", w=b"2")
    capability = {"target": "capabilities:double", "files": ["w.bin", "f/w.bin"]}
    BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()
    monkeypatch.chdir(tmp_path)
    moved = job.folder.rename(tmp_path / "other")
    (tmp_path / "f").mkdir()
    job.folder = moved.rename(tmp_path / "f/f")

    report = BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()

    assert report.shards_new == 0


def test_weights_that_a_copy_of_a_job_names_beside_the_old_ones_are_added(tmp_path, monkeypatch):
    """Two files must not be taken for one: what the second holds would go unread."""
    job = Job(tmp_path / "job")
    weights(job.folder, w=b"1")
    capability = {"target": "capabilities:double", "files": ["w.bin"]}
    BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()
    copy = shutil.copytree(job.folder, tmp_path / "job2")
    capability["files"].append(str(job.folder / "w.bin"))

    with pytest.raises(SpecChangedError, match=r"capability\.files: .*w\.bin: added"):
        BatchRunner(runs_in(copy, monkeypatch, capability=capability)).run()


def test_weights_that_became_one_file_with_a_move_are_not_forgotten(tmp_path, monkeypatch):
    """The one that is not read any more decided the output, too."""
    job = Job(tmp_path / "a/job")
    weights(tmp_path / "a", w=b"1")
    weights(tmp_path / "b", w=b"2")
    files = ["../w.bin", str(tmp_path / "b/w.bin")]
    capability = {"target": "capabilities:double", "files": files}
    BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()
    monkeypatch.chdir(tmp_path)
    job.folder = job.folder.rename(tmp_path / "b/job")

    with pytest.raises(SpecChangedError, match=r"capability\.files: .*/a/w\.bin: removed"):
        BatchRunner(runs_in(job.folder, monkeypatch, capability=capability)).run()


def weights(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.bin").write_bytes(data)


def as_before_partition_columns(folder):
    """A finished run over a table in folders, as a version left it that did not know them."""
    content = rows(0, 4)
    for day in ("2026-01-01", "2026-01-02"):
        path = folder / f"in/date={day}/a.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    spec = a_spec(folder, capability="capabilities:echo")
    BatchRunner(spec).run()
    plan = folder / "out/_checkpoint/plan/0000.parquet"
    stored = plan_file.plan_from_bytes(plan.read_bytes(), key="k")
    plan.write_bytes(plan_file.plan_to_bytes(replace(stored, place=plan_file.RunPlace())))
    return spec


def test_a_run_from_before_partition_columns_is_not_gone_on_with_in_silence(tmp_path):
    """Its parts lack the columns that the next ones would have."""
    spec = as_before_partition_columns(tmp_path)

    with pytest.raises(SpecChangedError, match=r"source\.partitioning: none -> hive"):
        BatchRunner(spec).run()

    assert BatchRunner(spec).run(accept_changes=True).shards_new == 0
    assert BatchRunner(spec).run().ok


def test_a_move_is_reported_where_the_places_came_from_the_environment(tmp_path):
    """Only digests of them are kept; the plan says where it was made."""
    text = (
        "capability: capabilities:double\n"
        "source: {uri: '${ROOT}/in', shard: {bytes: 4096}}\n"
        "sink: ${ROOT}/out\nexecution: {engine: local}\n"
    )

    def spec():
        return BatchSpec.from_text(text, origin="x.yaml", environ={"ROOT": str(job.folder)})

    job = Job(tmp_path / "job")
    BatchRunner(spec()).run()
    assert str(job.folder) not in (job.folder / "out/_checkpoint/run.json").read_text()
    job.folder = job.folder.rename(tmp_path / "job2")

    assert BatchRunner(spec()).run().shards_new == 0
    assert verify(spec()).ok
    job.folder = (tmp_path / "job2").rename(tmp_path / "job3")
    (job.folder / "in").rename(job.folder / "in2")
    text = text.replace("/in'", "/in2'")
    with pytest.raises(SpecChangedError, match=r"source\.uri: changed"):
        BatchRunner(spec()).run()
