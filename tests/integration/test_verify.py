"""What `verify` finds, and what becomes of it after `--repair`."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import random
import shutil
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import damage
import golden
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint, Generation, Sentinel
from batchrunner.checkpoint.plan_file import plan_from_bytes, plan_to_bytes
from batchrunner.errors import DamagedOutputError, LeaseHeldError, ObjectNotFoundError
from batchrunner.shard import Shard, Slicing
from batchrunner.storage import open_storage
from batchrunner.storage.json_documents import sealed
from batchrunner.verify import repair, verify
from batchrunner.verify.repairing import with_dependents
from builders import a_source, a_spec, parts, rows, rows_out, write_jsonl

SOME_ERRORS = {"max_row_errors": 5}


class Job:
    """A finished run of three shards, the second of which set a row aside.

    The source is shared by copies of the sink.
    """

    def __init__(self, source: Path, out: Path, **changes):
        self.source, self.out = source, out
        self.spec = a_spec(
            out.parent,
            source=str(source),
            capability="capabilities:fails_on_5",
            errors=SOME_ERRORS,
            **changes,
        )

    def copy(self, folder: Path) -> Job:
        shutil.copytree(self.out, folder / "out")
        sink = self.spec.sink.model_dump(exclude_none=True) | {"uri": str(folder / "out")}
        return Job(self.source, folder / "out", sink=sink)

    def run(self):
        report = BatchRunner(self.spec).run(accept_changes=True)  # of the place of the sink
        assert report.ok, report

    def found(self) -> set[str]:
        return {str(finding.kind) for finding in verify(self.spec).findings}

    def content(self):
        """All that a run makes, but for the names of its attempts."""
        set_aside = sorted(path.read_bytes() for path in self.out.glob("_checkpoint/errors/*"))
        output = {path.name: path.read_bytes() for path in self.out.glob("[_p]*.*")}
        return output, set_aside


def finished(folder: Path, **sink: str) -> Job:
    source = a_source(folder / "in", shards=3)
    job = Job(source, folder / "out", sink={"uri": str(folder / "out"), **sink})
    job.run()
    return job


SINKS = {
    "jsonl": {},
    "gz": {"compression": "gz"},
    "zst": {"compression": "zst"},
    "parquet": {"format": "parquet"},
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """One of each kind of sink, finished."""
    made: dict[str, Job] = {}

    def of(kind: str) -> Job:
        if kind not in made:
            made[kind] = finished(tmp_path_factory.mktemp(kind), **SINKS[kind])
        return made[kind]

    return of


@pytest.fixture
def job(jobs, tmp_path):
    return jobs("jsonl").copy(tmp_path)


@pytest.mark.parametrize("kind", SINKS)
@pytest.mark.parametrize("name", damage.ALL)
def test_damage_is_found_and_after_a_repair_the_run_makes_the_same_output(
    jobs, tmp_path, name, kind
):
    """The whole point: all of it found, nothing lost, the very same bytes in the end."""
    job = jobs(kind).copy(tmp_path)
    whole = job.content()
    do, expected = damage.ALL[name]
    do(job.out)

    found = job.found()

    assert found & expected, found
    before = held(job.out)
    repair(job.spec)
    assert job.found() == set()
    assert held(job.out) == before, "what holds rows was lost"
    job.run()
    assert job.content() == whole
    assert job.found() == set()


def held(out: Path) -> set[bytes]:
    """The content of all objects that may hold rows, wherever they are."""
    kept = [*out.rglob("*part-*")]
    return {
        path.read_bytes() for path in kept if path.is_file() and "sentinels" not in path.parts
    } - {b""}


@pytest.mark.parametrize("kind", SINKS)
def test_a_flipped_bit_is_found_wherever_it_is(jobs, tmp_path, kind):
    """Disks and networks do that; the size stays the same."""
    job = jobs(kind).copy(tmp_path)
    path = damage.part(job.out)
    whole, seed = path.read_bytes(), 11
    bits = random.Random(seed).sample(range(8 * len(whole)), 40)
    for bit in (0, 8 * len(whole) - 1, *bits):
        damage.flip(path, bit)
        assert job.found() == {"checksum"}, f"bit {bit}"
        path.write_bytes(whole)
    assert job.found() == set()


def test_a_flipped_bit_in_the_rows_set_aside_is_found_wherever_it_is(job):
    """They are rows, too: also where it leaves a valid line."""
    path = next((job.out / "_checkpoint/errors").iterdir())
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 41):
        damage.flip(path, bit)
        assert "dead_letters" in job.found(), f"bit {bit}"
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "field",
    [*(field.name for field in dataclasses.fields(Sentinel)), "check"],
)
def test_an_edited_sentinel_is_found_whatever_was_edited(job, field):
    """A sentinel that was edited to fit the damage must not vouch for it."""
    damage.edited(field)(job.out)

    assert "sentinel" in job.found()


def test_a_flipped_bit_in_a_sentinel_is_found_wherever_it_is(job):
    """Also in fields that nothing else could be held against."""
    path = damage.sentinel(job.out)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damage.flip(path, bit)
        assert "sentinel" in job.found() if bit % 97 == 0 else is_refused(path), f"bit {bit}"
        path.write_bytes(whole)


def is_refused(path: Path) -> bool:
    with pytest.raises(DamagedOutputError):
        Sentinel.from_bytes(path.read_bytes(), key=path.name)
    return True


def test_an_edited_manifest_is_found_whatever_was_edited(job):
    """It is what people and programs read first."""
    for where, content in damage.manifest_edits(job.out):
        path = job.out / "_manifest.json"
        whole = path.read_bytes()
        path.write_text(json.dumps(content))
        assert job.found() == {"manifest"}, where
        path.write_bytes(whole)


def test_the_ledgers_are_not_asked(job):
    """They are copies: a sentinel that was edited keeps its old copy only by luck."""
    path = damage.sentinel(job.out)
    times = path.stat()
    damage.edited("rows_in")(job.out)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert "sentinel" in job.found()


def test_a_part_copied_into_a_folder_of_the_sink_is_found_and_moved_away(job):
    """A recursive read of the sink would have its rows twice."""
    folder = job.out / "backup/of/monday"
    folder.mkdir(parents=True)
    shutil.copy(damage.part(job.out), folder / "copy.jsonl")
    (folder / "notes.jsonl").write_text("{}\n")

    found = [(str(f.kind), f.part) for f in verify(job.spec).findings]
    repair(job.spec)

    assert found == [
        ("duplicate", "backup/of/monday/copy.jsonl"),
        ("orphan", "backup/of/monday/notes.jsonl"),
    ]
    assert job.found() == set()
    assert len(list(job.out.glob("_damaged/*/backup/of/monday/*.jsonl"))) == 2


@pytest.mark.parametrize(
    "place", ["_old/x.jsonl", "old/_x.jsonl", ".old/x.jsonl", "old/readme.txt"]
)
def test_what_no_reader_takes_for_data_is_left_alone(job, place):
    """Names with an underscore or a dot are hidden by every engine."""
    (job.out / place).parent.mkdir(exist_ok=True)
    (job.out / place).write_text("{}\n")

    assert job.found() == set()


@pytest.mark.parametrize("is_link", [False, True])
@pytest.mark.parametrize("sink_format", ["jsonl", "parquet"])
def test_source_checkpoint_and_store_below_the_sink_are_no_output(tmp_path, sink_format, is_link):
    """They hold files that look like data, and `--repair` must never move them."""
    out = tmp_path / "out"
    a_source(out / "raw", shards=3)
    if is_link:
        (tmp_path / "link").symlink_to(out)
    root = tmp_path / "link" if is_link else out
    spec = a_spec(
        tmp_path,
        source=f"{root}/raw/in-*.jsonl",
        sink={"uri": str(out), "format": sink_format},
        checkpoint_dir=f"{root}/state",
        capability="capabilities:fails_on_5",
        analytics_store=f"{root}/store",
        errors=SOME_ERRORS,
    )
    assert BatchRunner(spec).run().ok

    assert verify(spec).findings == ()
    assert BatchRunner(spec).run(fresh=True).ok
    assert verify(spec).findings == ()
    damage.stranger(out)
    assert {str(f.kind) for f in verify(spec).findings} == {"orphan"}


def test_a_checkpoint_that_is_the_sink_itself_is_no_output(tmp_path):
    """An odd place, and a whole run all the same."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, checkpoint_dir=str(tmp_path / "out"))
    assert BatchRunner(spec).run().ok

    assert verify(spec).findings == ()
    assert BatchRunner(spec).run(fresh=True).ok
    assert verify(spec).findings == ()


def test_the_output_of_another_run_below_the_sink_is_noted_and_never_moved(job):
    """It is not ours to repair, but a recursive reader has to be warned."""
    below = job.out / "experiment"
    a_source(job.source.parent / "more", shards=1)
    other = a_spec(job.out.parent, source=str(job.source.parent / "more"), sink=str(below))
    assert BatchRunner(other).run().ok

    seen = verify(job.spec)
    repair(job.spec)

    assert seen.findings == ()
    assert seen.notes == (
        "experiment/ is the output of another run: a recursive read of the sink includes it",
    )
    assert verify(other).ok


def test_a_sentinel_too_large_to_be_read_is_one_finding(job):
    """The rest is verified; the store itself works."""
    damage.a_huge_sentinel(job.out)
    damage.flip(damage.part(job.out, 0), 9)

    found = {(str(f.kind), f.shard) for f in verify(job.spec).findings}

    assert found == {("sentinel", 1), ("checksum", 0)}


def test_each_finding_names_shard_part_kind_and_reason(job):
    """The reader of a finding knows where to look."""
    damage.cut(job.out)

    (finding,) = verify(job.spec).findings

    size = damage.part(job.out).stat().st_size
    assert finding.to_dict() == {
        "shard": 1,
        "part": "part-00001.jsonl",
        "kind": "size",
        "why": f"it has {size} bytes; its sentinel says {size + 1}",
    }


CLEAN = {
    "fan-out": {"capability": {"target": "capabilities:fan_out_and_drop", "mode": "row"}},
    "filter": {"capability": {"target": "capabilities:even_or_none", "mode": "row"}},
    "nothing left": {"capability": "capabilities:keep_nothing"},
    "nothing left, parquet": {
        "capability": "capabilities:one_shard_empty",
        "sink": {"format": "parquet"},
    },
    "row errors": {"capability": "capabilities:fails_on_5", "errors": SOME_ERRORS},
    "a limit": {"source": {"limit": 5}},
    "rows a shard": {"source": {"shard": {"rows": 3}}},
    "rows a shard and a limit": {"source": {"shard": {"rows": 3}, "limit": 7}},
    "one column": {"source": {"columns": ["id"]}},
}


def the_spec(folder, **changes):
    for name in ("source", "sink"):
        given = changes.get(name, {})
        changes[name] = {"uri": str(folder / {"source": "in", "sink": "out"}[name]), **given}
    return a_spec(folder, **{"capability": "capabilities:echo", **changes})


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_run_has_no_finding(tmp_path, name):
    """An alarm that cries wolf is switched off."""
    a_source(tmp_path / "in", shards=3)
    spec = the_spec(tmp_path, **CLEAN[name])
    assert BatchRunner(spec).run().ok

    seen = verify(spec)

    assert seen.findings == ()
    assert seen.rows_out == len(rows_out(tmp_path / "out"))


PARQUET_SHARDS = [
    {},
    {"shard": {"row_groups": 2}},
    {"shard": {"rows": 350}},
    {"shard": {"bytes": 4096}},
    {"shard": {"rows": 350}, "limit": 1200},
    {"shard": {"row_groups": 2}, "limit": 700},
    {"shard": {"bytes": 4096}, "limit": 999},
    {"limit": 600},
]


@pytest.mark.parametrize("source", PARQUET_SHARDS, ids=str)
def test_a_clean_run_over_parquet_has_no_finding(tmp_path, source):
    """However the file was cut."""
    (tmp_path / "in").mkdir()
    for number in range(2):
        table = pa.Table.from_pylist(rows(number * 1000, 1000))
        pq.write_table(table, tmp_path / f"in/{number}.parquet", row_group_size=300)
    spec = the_spec(tmp_path, source=source)
    assert BatchRunner(spec).run().ok

    assert verify(spec).findings == ()


ODD_LINES = [
    b'{"id": 1}\n\n  \n\t\r\n{"id": 2}\r\n',
    b'{"id": 1}\n{"id": 2}',
    b'\xef\xbb\xbf{"id": 1}\n{"id": 2}\n',
    b'\xef\xbb\xbf\n{"id": 1}\n',
    b'{"id": 1, "text": "\xe2\x80\xa8 no line end"}\n' + b'{"id": 2}\n' * 50,
    b'\n\n\n{"id": 1}\n' + b" " * 200 + b'\n{"id": 2}\n',
    b'not json\n{"id": 1}\n[]\n' * 5,
    b"\n",
    b'{"id": 1, "text": "' + b"x" * 3000 + b'"}\n{"id": 2}\n',
]


@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize(
    "shard", [{"bytes": 4096}, {"bytes": 4099}, {"files": 1}, {"rows": 7}], ids=str
)
@pytest.mark.parametrize("content", ODD_LINES, ids=range(len(ODD_LINES)))
def test_both_counts_of_odd_lines_are_the_same(tmp_path, content, shard, compression):
    """Two counts by two pieces of code: blank lines, marks, line ends, cuts anywhere."""
    is_read_often = compression and "rows" in shard  # once for each shard
    content *= max((2_000 if is_read_often else 20_000) // len(content), 1)
    (tmp_path / "in").mkdir()
    path = tmp_path / f"in/0.jsonl{'.gz' if compression else ''}"
    path.write_bytes(gzip.compress(content) if compression else content)
    errors = {"max_row_errors": 100_000}
    spec = the_spec(tmp_path, source={"shard": shard}, errors=errors)
    assert BatchRunner(spec).run().ok

    assert verify(spec).findings == ()


def test_a_grown_run_with_retired_files_has_no_finding(tmp_path):
    """A file changed, one came, one went; a row was set aside on the way."""
    source = a_source(tmp_path / "in", shards=3)
    spec = a_spec(tmp_path, capability="capabilities:fails_on_5", errors=SOME_ERRORS)
    BatchRunner(spec).run()
    write_jsonl(source / "in-001.jsonl", rows(50, 3))
    write_jsonl(source / "new.jsonl", rows(90, 3))
    (source / "in-000.jsonl").unlink()
    assert BatchRunner(spec).run(accept_changes=True).ok

    assert verify(spec).findings == ()


def test_the_run_of_version_1_has_no_finding():
    """What earlier versions wrote is verified like anything else."""
    golden.load("golden")

    seen = verify(golden.a_spec("golden"))

    store = open_storage("memory://golden")
    store.delete([entry.key for entry in store.list(recursive=True)])
    assert (seen.findings, seen.notes, seen.rows_in) == ((), (), 14)


def test_shards_that_are_not_committed_yet_are_reported_and_no_defect(job):
    """A run that was stopped is not broken."""
    damage.delete(job.out)
    damage.deleted_sentinel(job.out)
    (job.out / "_SUCCESS").unlink()

    seen = verify(job.spec)

    assert seen.findings == ()
    assert seen.notes == ("1 of 3 shards are not committed yet",)


def test_a_part_that_still_waits_for_its_sentinel_is_no_defect(tmp_path, monkeypatch):
    """Its worker died after publishing it; the next run seals it."""
    from batchrunner.storage.disk.storage import LocalStorage

    a_source(tmp_path / "in", shards=1)
    spec = a_spec(tmp_path)
    monkeypatch.setattr(Checkpoint, "publish", dies)
    monkeypatch.setattr(LocalStorage, "remove_intents", lambda self, keys: None)
    with pytest.raises(KeyboardInterrupt):
        BatchRunner(spec).run()
    monkeypatch.undo()
    assert [path.name for path in parts(tmp_path / "out")] == ["part-00000.jsonl"]

    assert verify(spec).findings == ()


def dies(_, sentinels):
    if sentinels:
        raise KeyboardInterrupt
    return {}


def test_a_source_that_changed_since_is_reported_and_no_defect(jobs, tmp_path):
    """The rows of a file that is gone cannot be counted."""
    source = a_source(tmp_path / "in", shards=3)
    spec = a_spec(tmp_path)
    BatchRunner(spec).run()
    write_jsonl(source / "in-001.jsonl", rows(50, 3))
    (source / "in-002.jsonl").unlink()

    seen = verify(spec)

    assert seen.findings == ()
    assert seen.ok
    assert len(seen.notes) == 2
    changed, gone = seen.notes
    assert changed.startswith(f"{source}/in-001.jsonl: it has ")
    assert "`batchrunner run` plans it anew" in changed
    assert gone.startswith(f"{source}/in-002.jsonl: it is gone")
    assert "`batchrunner run --accept-changes` takes its rows out of the output" in gone


KINDS_OF_SOURCE = ["jsonl", "jsonl.gz", "parquet"]


@pytest.mark.parametrize("kind", KINDS_OF_SOURCE)
@pytest.mark.parametrize("shard", [{"rows": 3}, {"files": 1}], ids=str)
def test_rows_are_counted_in_files_that_have_only_another_time(tmp_path, kind, shard):
    """A checkout must not turn the check off: a sentinel with a wrong count is still found."""
    source = a_source_of(tmp_path / "in", kind)
    spec = a_spec(tmp_path, source={"uri": str(source), "shard": shard})
    assert BatchRunner(spec).run().ok
    damage.forged(rows_in=99)(tmp_path / "out")
    before = state(tmp_path)
    for path in source.iterdir():
        os.utime(path)
    touched = state(tmp_path)

    seen = verify(spec)

    assert {(str(f.kind), f.shard) for f in seen.findings} >= {("rows_in", 1)}
    assert seen.notes == ()
    assert state(tmp_path) == touched != before


def a_source_of(folder: Path, kind: str) -> Path:
    """Two files of seven rows."""
    folder.mkdir()
    for number in range(2):
        path, some = folder / f"{number}.{kind}", rows(7 * number, 7)
        text = "".join(json.dumps(row) + "\n" for row in some).encode()
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(some), path, row_group_size=2)
        else:
            path.write_bytes(gzip.compress(text) if kind == "jsonl.gz" else text)
    return folder


def state(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_file_of_the_same_size_and_other_bytes_is_reported_once(tmp_path):
    """Its rows are not those that were read: to count them would find defects that are none."""
    write_jsonl(tmp_path / "in/0.jsonl", rows(10, 9))
    spec = a_spec(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"rows": 2}})
    assert BatchRunner(spec).run().shards == 5
    write_jsonl(tmp_path / "in/0.jsonl", rows(20, 9))

    seen = verify(spec)

    assert (seen.ok, seen.findings) == (True, ())
    (note,) = seen.notes
    assert note.startswith(f"{tmp_path}/in/0.jsonl: its bytes differ from those that were read")


def test_a_touched_file_is_counted_though_another_uri_names_nothing_any_more(tmp_path):
    """The source can then not be listed as a whole; each file is looked up by its name."""
    source = a_source(tmp_path / "in", shards=2)
    uris = [f"{source}/in-000.jsonl", f"{source}/in-001.jsonl"]
    spec = a_spec(tmp_path, source=uris)
    assert BatchRunner(spec).run().ok
    damage.forged(rows_in=99)(tmp_path / "out")
    (source / "in-000.jsonl").unlink()
    os.utime(source / "in-001.jsonl")

    seen = verify(spec)

    assert ("rows_in", 1) in {(str(f.kind), f.shard) for f in seen.findings}
    (note,) = seen.notes
    assert note.startswith(f"{uris[0]}: it is gone")


def test_a_sentinel_of_another_shard_is_no_witness_against_a_touched_file(tmp_path):
    """Its hash is that of other rows: the file would be called changed, and left out."""
    write_jsonl(tmp_path / "in/0.jsonl", rows(0, 2000))
    spec = a_spec(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"bytes": 20_000}})
    assert BatchRunner(spec).run().shards == 3
    damage.another_sentinel(tmp_path / "out")
    os.utime(tmp_path / "in/0.jsonl")

    seen = verify(spec)

    assert ("sentinel", 1) in {(str(f.kind), f.shard) for f in seen.findings}
    assert seen.notes == ()


def test_a_moved_run_is_counted_where_it_is_now(tmp_path):
    """`cp -r` gives every file of the source a new time, and a new name."""
    folder = tmp_path / "here"
    a_source(folder / "in", shards=3)
    assert BatchRunner(a_spec(folder)).run().ok
    shutil.copytree(folder, tmp_path / "there", copy_function=shutil.copyfile)
    damage.forged(rows_in=99)(tmp_path / "there/out")

    seen = verify(a_spec(tmp_path / "there"))

    assert ("rows_in", 1) in {(str(f.kind), f.shard) for f in seen.findings}
    assert seen.notes == ()


def test_what_nothing_was_run_for_cannot_be_verified(tmp_path):
    """An empty folder is no clean run."""
    a_source(tmp_path / "in")

    with pytest.raises(ObjectNotFoundError, match="there is no run"):
        verify(a_spec(tmp_path))


def test_nothing_is_repaired_beside_a_run(job):
    """Its lease says that it runs."""
    from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease

    damage.cut(job.out)
    checkpoint = open_storage(str(job.out / "_checkpoint"))
    acquire_lease(checkpoint, LeaseOwner.this_process("another driver"))

    with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on"):
        repair(job.spec)

    assert damage.part(job.out).exists()


def test_a_second_repair_overwrites_nothing_of_the_first(job):
    """Both versions of a damaged part may be wanted."""
    for _ in range(2):
        damage.cut(job.out)
        repair(job.spec)
        job.run()

    assert len(list(job.out.glob("_damaged/*/part-00001.jsonl"))) == 2


def test_damage_that_verify_finds_is_refused_by_the_next_run_with_the_way_out(job):
    """The first command that reads it names the way out."""
    damage.cut(job.out)

    with pytest.raises(DamagedOutputError, match=r"batchrunner verify --repair SPEC"):
        job.run()


def test_a_plan_that_was_edited_is_found(job):
    """It says which rows there are; with one number other, all else may agree with it."""
    path = job.out / "_checkpoint/plan/0000.parquet"
    table = pq.read_table(path)
    stop = pa.array([1, *table["stop"].to_pylist()[1:]])
    edited = table.set_column(table.schema.names.index("stop"), table.schema.field("stop"), stop)
    pq.write_table(edited, path)

    (finding,) = verify(job.spec).findings

    assert finding.kind == "record"
    assert "plan/0000.parquet is damaged: it was changed after it was written" in finding.why


def with_dead_letters(job: Job) -> Job:
    """The row that shard 1 set aside was tried again by shard 3, and set aside once more; then by 4.

    Made by hand, as `retry --rows` leaves it.
    """
    checkpoint = Checkpoint(open_storage(str(job.out / "_checkpoint")))
    (plan,) = checkpoint.generations()
    first = checkpoint.sentinels().good[1]
    dead_letters = (job.out / "_checkpoint/errors" / first.errors).read_bytes()
    for number, (origin, failed) in enumerate([(1, 1), (3, 0)], start=3):
        piece = dataclasses.replace(
            plan.shards[1].first, slicing=Slicing.DEAD_LETTERS, start=origin, stop=1, rows=1
        )
        shard = Shard(number, (piece,))
        checkpoint.add_generation(Generation(plan.facts, (shard,)), number=number - 2)
        part = b"" if failed else b'{"id":5}\n'
        (job.out / f"part-{number:05d}.jsonl").write_bytes(part)
        name = f"part-{number:05d}.abc.jsonl" if failed else ""
        if failed:
            (job.out / "_checkpoint/errors" / name).write_bytes(dead_letters)
        sentinel = dataclasses.replace(
            first,
            shard=number,
            part=f"part-{number:05d}.jsonl",
            rows_in=1,
            rows_out=1 - failed,
            rows_failed=failed,
            bytes=len(part),
            sha256=hashlib.sha256(part).hexdigest(),
            errors=name,
        )
        checkpoint.publish({f"part-{number:05d}": sentinel})
    for name in ("_SUCCESS", "_manifest.json"):
        (job.out / name).unlink()
    return job


def test_rows_that_were_tried_again_count_once(job):
    """They are the same rows, whichever shard they went through in the end."""
    with_dead_letters(job)

    seen = verify(job.spec)

    assert seen.findings == ()
    assert (seen.rows_in, seen.rows_out, seen.rows_failed) == (12, 12, 0)


def test_shards_that_tried_rows_again_are_made_again_with_the_shard_that_set_them_aside(job):
    """Else the rows that come out of the repaired shard would stand twice."""
    with_dead_letters(job)
    damage.cut(job.out)

    done = repair(job.spec)

    assert done.to_recompute == [1, 3, 4]
    assert [path.name for path in parts(job.out)] == ["part-00000.jsonl", "part-00002.jsonl"]
    assert len(list(job.out.glob("_checkpoint/_damaged/*/errors/*"))) == 2


def test_a_shard_is_taken_back_after_those_that_depend_on_it(job):
    """Whenever a crash comes, what depends on damage is not relied upon."""
    with_dead_letters(job)
    checkpoint = Checkpoint(open_storage(str(job.out / "_checkpoint")))
    shards = [shard for one in checkpoint.generations() for shard in one.shards]

    assert [shard.id for shard in with_dependents(shards, {0, 1})] == [4, 3, 1, 0]
    assert [shard.id for shard in with_dependents(shards, {3})] == [4, 3]


@pytest.mark.parametrize("field", ["rows_in", "start"])
def test_a_shard_of_dead_letters_is_held_against_its_origin(job, field):
    """It reads as many rows as were set aside, of a shard that is there."""
    with_dead_letters(job)
    if field == "rows_in":
        path = damage.sentinel(job.out, 4)
        path.write_bytes(sealed(orjson.dumps({**damage.fields_of(path), "rows_in": 2})))
    else:
        damage.sentinel(job.out, 3).unlink()
        (job.out / "part-00003.jsonl").unlink()

    (finding,) = verify(job.spec).findings

    assert (finding.shard, str(finding.kind)) == (4, "rows_in")


def test_rows_tried_again_by_two_shards_are_a_finding(job):
    """They would come out twice; only a user can decide which is right."""
    with_dead_letters(job)
    checkpoint = Checkpoint(open_storage(str(job.out / "_checkpoint")))
    plan = checkpoint.generations()[1]
    twice = dataclasses.replace(plan.shards[0], id=5)
    checkpoint.add_generation(Generation(plan.facts, (twice,)), number=3)

    (finding,) = verify(job.spec).findings

    assert (finding.shard, str(finding.kind)) == (5, "plan")


def test_a_plan_that_leaves_rows_out_is_a_finding(tmp_path):
    """Every shard may be perfect, and the output still not whole."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=12)
    spec = a_spec(tmp_path, source={"uri": str(tmp_path / "in"), "shard": {"rows": 4}})
    BatchRunner(spec).run()
    path = tmp_path / "out/_checkpoint/plan/0000.parquet"
    whole = plan_from_bytes(path.read_bytes(), key="plan")
    for kept, why in [(whole.shards[:2], "4 rows come after"), (whole.shards[1:], "begins at")]:
        path.write_bytes(plan_to_bytes(dataclasses.replace(whole, shards=kept)))

        whys = [finding.why for finding in verify(spec).findings if str(finding.kind) == "plan"]

        assert len(whys) == 1
        assert why in whys[0]


def test_rows_that_other_shards_set_aside_stay_where_they_are(job):
    """Their sentinels name those files."""
    before = [path.name for path in job.out.glob("_checkpoint/errors/*")]
    os.truncate(damage.part(job.out, 0), 3)

    assert repair(job.spec).to_recompute == [0]
    assert [path.name for path in job.out.glob("_checkpoint/errors/*")] == before == [before[0]]
    job.run()
    assert job.found() == set()


@pytest.mark.parametrize("is_mended", [False, True])
def test_after_a_repair_rows_are_tried_again_once_they_are_set_aside_again(tmp_path, is_mended):
    """One run does both, in that order, also when nothing fails any more."""
    flag = tmp_path / "mended"
    for number in range(3):
        some = [{"id": n, "bad": n in (5, 6)} for n in range(number * 4, number * 4 + 4)]
        write_jsonl(tmp_path / f"in/{number}.jsonl", some)
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(flag)}},
        errors={"max_row_errors": 5, "retry": {"max_attempts": 1}},
    )
    assert BatchRunner(spec).run().rows_failed == 2
    assert BatchRunner(spec).retry(rows=True).rows_failed == 2
    assert verify(spec).findings == ()
    damage.cut(tmp_path / "out")
    if is_mended:
        flag.touch()

    done = repair(spec)
    report = BatchRunner(spec).run()

    assert done.to_recompute == [1, 3]
    assert report.ok, report.failures
    assert report.rows_failed == (0 if is_mended else 2)
    assert sorted(row["id"] for row in rows_out(tmp_path / "out")) == [
        n for n in range(12) if is_mended or n not in (5, 6)
    ]
    assert verify(spec).findings == ()
