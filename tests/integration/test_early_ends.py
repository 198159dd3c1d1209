"""Shards that turn out slow end early: the output is the same, and whatever dies, no row is lost or doubled."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.commit import Finished, commit
from batchrunner.driver import packing
from batchrunner.driver.opening import open_run
from batchrunner.driver.session import Stop, open_session
from batchrunner.driver.survey import take_survey
from batchrunner.execute.local import run_locally
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, verify
from builders import a_spec, parts, rows_out
from small_files import dead_letters

# `tests/unit/test_slow_shards.py` and `test_cutting.py` hold early ends in `make test`.
pytestmark = pytest.mark.long

COUNT = 240
SECONDS = 0.03
A_ROW = 0.001
"""A shard of 240 rows takes eight times as long as it may, on an idle machine."""

SESSIONS = 60
MANY = {"retry": {"max_attempts": 1}, "max_row_errors": 1.0}
REFUSED = {13, 63, 113, 163, 213}


def _lines(ids, *, bad=True):
    for id_ in ids:
        yield json.dumps({"id": id_, "text": f"row {id_}"}) + "\n"
        if bad and id_ % 9 == 4:
            yield f"bad {id_}\n"


def jsonl(folder):
    (folder / "a.jsonl").write_text("".join(_lines(range(COUNT))))


def compressed(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress("".join(_lines(range(COUNT))).encode()))


def packed(folder):
    for number in range(COUNT // 8):
        ids = range(number * 8, number * 8 + 8)
        (folder / f"{number:03}.jsonl").write_text("".join(_lines(ids)))


def csv(folder):
    lines = (f'{i},"row\n{i}"\n' + ("1,2,3,4\n" if i % 9 == 4 else "") for i in range(COUNT))
    (folder / "a.csv").write_text("id,text\n" + "".join(lines))


def an_array(folder):
    (folder / "a.json").write_text(
        json.dumps([json.loads(one) for one in _lines(range(COUNT), bad=False)])
    )


def _table():
    return pa.table({"id": range(COUNT), "text": [f"row {n}" for n in range(COUNT)]})


def parquet(folder):
    pq.write_table(_table(), folder / "a.parquet", row_group_size=100)


def arrow(folder):
    with pa.ipc.new_file(folder / "a.arrow", _table().schema) as file:
        file.write_table(_table(), max_chunksize=100)


SOURCES = {one.__name__: one for one in (jsonl, compressed, packed, csv, an_array, parquet, arrow)}


@pytest.fixture(autouse=True)
def _one_pack(monkeypatch):
    """Else the files of a source of 64 or fewer have a shard each, and more make eight quick ones."""
    monkeypatch.setattr(packing, "FEW_FILES", 1)
    monkeypatch.setattr(packing, "_PACKS", 1)


class Job:
    """A source whose rows each take a millisecond, and runs of it, session after session."""

    def __init__(self, folder: Path, kind: str, **execution):
        self.folder, self.kind = folder, kind
        (folder / "in").mkdir()
        SOURCES[kind](folder / "in")
        self.execution = {"engine": "local", "batch_size": 8, **execution}
        self.errors = dict(MANY)
        self.target = {"target": "capabilities:dawdles"}

    def spec(self):
        kwargs = {"seconds": A_ROW, "mended": str(self.folder / "mended")}
        source = {"uri": str(self.folder / "in"), "shard": {"seconds": SECONDS}}
        return a_spec(
            self.folder,
            capability={"fn_kwargs": kwargs, "deterministic": True, **self.target},
            source=source,
            sink={"uri": str(self.folder / "out"), "format": "jsonl"},
            execution=self.execution,
            errors=self.errors,
        )

    def runner(self):
        return BatchRunner(self.spec())

    def session(self, **how):
        return self.runner().run(progress=None, **how)

    def run(self):
        """Go on until all is done, as a user does; a session may end with rows that have no shard yet."""
        for _ in range(SESSIONS):
            report = self.session()
            assert report.exit_code in (0, 3), report
            if report.ok:
                return report
        raise AssertionError(f"not done after {SESSIONS} sessions: {report}")

    def join(self, number: int):
        """Make the small files *number* large ones, each of them a shard."""
        small = sorted((self.folder / "in").iterdir())
        for at in range(0, len(small), len(small) // number):
            some = small[at : at + len(small) // number]
            some[0].write_text("".join(path.read_text() for path in some))
            for path in some[1:]:
                path.unlink()

    def die_before_the_rest_is_planned(self):
        """Run what is pending as a driver does that dies once the sentinels are there."""
        runner, stop = self.runner(), Stop.of(self.spec())
        run = runner._run()
        with open_session(run.checkpoint, stop=stop) as session:
            survey = take_survey(run)
            opened = open_run(run, survey, session)
            work = runner._work(opened, survey, session)
            for _ in run_locally(work, opened.pending, stop=stop, hear=lambda _: None):
                pass

    def ids(self):
        return sorted(int(row["id"]) for row in rows_out(self.folder / "out"))

    def checkpoint(self):
        return Checkpoint.current(open_storage(str(self.folder / "out/_checkpoint")))

    def sentinels(self):
        return self.checkpoint().sentinels().good

    def early(self):
        return [one for one in self.sentinels().values() if one.slices]

    def unread(self):
        """The files and places of rows that are none, by our own reading of the source."""
        found = []
        for path in sorted((self.folder / "in").iterdir()):
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            at = 0
            for line in data.splitlines(keepends=True):
                if line.startswith(b"bad ") or line == b"1,2,3,4\n":
                    found.append((path.name, at))
                at += len(line)
        return found

    def check(self, *, refused=REFUSED):
        """Compare what came out with what went in, and let `verify` do so as well."""
        assert self.ids() == sorted(set(range(COUNT)) - refused)
        letters = dead_letters(self.folder / "out")
        assert [one[:2] for one in letters if one[2] == "read"] == self.unread()
        assert len([one for one in letters if one[2] != "read"]) == len(refused)
        result = verify(self.spec(), checks=Checks(keys=("id",), replay=1.0))
        assert result.ok, result.findings
        everything = f"replayed {result.shards} of {result.shards} shards"
        assert any(everything in note for note in result.notes)


@pytest.mark.parametrize(
    ("kind", "batch_format"),
    [
        *((kind, batch_format) for kind in SOURCES for batch_format in ("rows", "pyarrow")),
        ("jsonl", "numpy"),
        ("packed", "pandas"),
    ],
)
def test_every_row_comes_out_once_wherever_shards_end(tmp_path, kind, batch_format):
    """Inside of a chunk, beside rows that cannot be read, in a pack, in a compressed file."""
    job = Job(tmp_path, kind, batch_format=batch_format)
    job.run()

    assert job.early()
    job.check()
    before = {part.name: part.read_bytes() for part in parts(tmp_path / "out")}
    assert job.session().shards_new == 0
    assert before == {part.name: part.read_bytes() for part in parts(tmp_path / "out")}


@pytest.mark.parametrize(
    ("engine", "batch_format"), [("local", "rows"), ("local", "pyarrow"), ("ray", "rows")]
)
def test_slow_shards_that_share_batches_each_end_in_their_own_rows(
    request, tmp_path, monkeypatch, engine, batch_format
):
    """A batch may have the last rows before one shard's end, and the first ones of the next shard."""
    monkeypatch.setattr(packing, "FEW_FILES", 64)
    if engine == "ray":
        request.getfixturevalue("local_ray")
    workers = {"concurrency": 2} if engine == "ray" else {}
    job = Job(tmp_path, "packed", engine=engine, batch_format=batch_format, **workers)
    job.target = {"target": "capabilities:dawdles", "one_to_one": True}
    job.join(3)
    job.run()

    assert len(job.early()) > 1
    job.check()


@pytest.mark.parametrize("in_another_process", [False, True])
def test_calls_that_are_under_way_at_the_end_are_kept(tmp_path, in_another_process):
    """No answer is thrown away: rows that were asked for may have cost money."""
    job = Job(tmp_path, "jsonl", max_concurrency=4)
    job.errors["batch_timeout"] = "1m" if in_another_process else None
    kwargs = {"seconds": 4 * A_ROW, "path": str(tmp_path / "called")}
    job.target = {"target": "capabilities:dawdles_asynchronously", "fn_kwargs": kwargs}
    job.run()

    called = sorted(int(line) for line in (tmp_path / "called").read_text().split())
    assert job.early()
    job.check(refused=set())
    assert called == list(range(COUNT))


def test_of_two_attempts_that_end_in_different_places_the_one_with_the_part_counts(tmp_path):
    """The other takes over its sentinel, with its end: what is left follows from the part alone."""
    job = Job(tmp_path, "jsonl")
    job.die_before_the_rest_is_planned()
    (first,) = job.early()
    sink, checkpoint = open_storage(str(tmp_path / "out")), job.checkpoint()
    staged = sink.stage()
    staged.file.write(b"other\n")
    staged.file.close()
    sha256 = hashlib.sha256(b"other\n").hexdigest()
    other = replace(first, slice_rows=1, rows_in=1, bytes=6, sha256=sha256, write_id="other")

    (counting,) = commit(
        [Finished("part-00000", staged, other)], sink=sink, checkpoint=checkpoint
    ).values()

    assert counting == first
    job.run()
    job.check()


def test_rows_that_have_no_shard_yet_are_no_defect_and_the_next_session_runs_them(tmp_path):
    """A driver may die between the sentinel and the generation that has the rest."""
    job = Job(tmp_path, "jsonl")
    job.die_before_the_rest_is_planned()
    (first,) = job.sentinels().values()
    assert first.slices

    result = verify(job.spec(), checks=Checks(keys=("id",)))
    assert result.ok, result.findings
    assert result.committed < result.shards
    survey = job.runner().plan()
    assert [shard.id for shard in survey.pending] == list(range(1, result.shards))
    assert {survey.why(s) for s in survey.pending} == {"the rest of shard 0, which ended early"}
    assert survey.plan.active[0].rows == first.rows_in
    job.run()
    job.check()


def test_a_part_without_its_sentinel_is_adopted_with_its_end(tmp_path):
    """The worker died in between: what its intent says becomes the sentinel."""
    job = Job(tmp_path, "jsonl")
    job.die_before_the_rest_is_planned()
    (first,) = job.sentinels().values()
    sentinel = tmp_path / "out/_checkpoint/sentinels/part-00000.json"
    sentinel.unlink()
    shutil.rmtree(tmp_path / "out/_checkpoint/sentinel_index", ignore_errors=True)
    sink = open_storage(str(tmp_path / "out"))
    part = tmp_path / "out" / first.part
    with_intent = sink.stage()
    with_intent.file.write(part.read_bytes())
    with_intent.file.close()
    part.unlink()
    assert sink.publish({first.part: (with_intent, first.to_intent())})

    job.run()

    assert job.sentinels()[0].early_end == first.early_end
    job.check()


def test_failed_rows_are_tried_again_where_they_stand(tmp_path):
    """Their places are those in the file, whatever window of it their shard had."""
    job = Job(tmp_path, "jsonl")
    job.run()
    assert len({one.shard for one in job.sentinels().values() if one.rows_failed}) > 1
    (tmp_path / "mended").touch()
    (tmp_path / "in/a.jsonl").touch()

    assert job.runner().retry(rows=True, progress=None).rows_failed == len(job.unread())

    assert job.ids() == list(range(COUNT))
    result = verify(job.spec(), checks=Checks(keys=("id",)))
    assert result.ok, result.findings


@pytest.mark.parametrize("kind", SOURCES)
def test_a_file_that_was_only_touched_is_not_computed_again(tmp_path, kind):
    """The hash of a window is of what was read for it, from the start of its slice."""
    job = Job(tmp_path, kind)
    job.run()
    for path in (tmp_path / "in").iterdir():
        os.utime(path, ns=(1, 1))

    report = job.session()

    assert (report.ok, report.shards_new) == (True, 0)
    job.check()


@pytest.mark.parametrize("kind", ["jsonl", "compressed", "parquet"])
def test_a_file_that_changed_is_made_again_as_a_whole(tmp_path, kind):
    """All shards that read it retire, the rest of a slow one among them, planned or not."""
    job = Job(tmp_path, kind)
    job.die_before_the_rest_is_planned()
    SOURCES[kind](tmp_path / "in")
    path = next((tmp_path / "in").iterdir())
    os.utime(path, ns=(1, 1))
    if kind == "jsonl":
        path.write_text(path.read_text().replace("row 7", "ROW 7"))
    elif kind == "compressed":
        path.write_bytes(
            gzip.compress("".join(_lines(range(COUNT))).replace("row 7", "ROW 7").encode())
        )
    else:
        pq.write_table(_table().append_column("more", pa.array([1] * COUNT)), path)

    job.run()

    assert 0 in {shard.id for shard in job.runner().plan().plan.retired}
    job.check()
