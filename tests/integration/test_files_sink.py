"""A sink of files: each row's file is there once, as its part lists it, whatever happens to the run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint import bundles as bundling
from batchrunner.checkpoint import commit as committing
from batchrunner.driver import retiring
from batchrunner.errors import InvalidSpecError
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.verify import Checks, repair, verify
from batchrunner.views.garbage import Garbage
from batchrunner.worker.file_names import FileNames
from builders import a_source, a_spec, parts, rows_out, write_jsonl
from command import a_spec_file, batchrunner
from file_sinks import files_in, lines_of, misfits, path_of
from killing import killed_with_parts

FORMATS = ("rows", "numpy", "pandas", "pyarrow")
CONTENT = {
    "empty.png": b"",
    "a picture.png": bytes(range(256)) * 40,
    "deep/er/sound.WAV": b"\x00\xff\x00\x00",
    "no-extension": b"{}",
    "rows.jsonl.gz": b"not really",
    "table.parquet": b"PAR1",
    "ä€𝄞.pdf": b"%PDF\r\n",
}


def a_files_spec(folder, target, **changes):
    sink = {"uri": str(folder / "out"), "format": "files"}
    capability = {"target": f"file_sinks:{target}", **changes.pop("capability", {})}
    errors = {"max_row_errors": 9}
    return a_spec(folder, **{"sink": sink, "capability": capability, "errors": errors, **changes})


def drawing(folder, **changes):
    """A spec that makes other bytes each time, of three shards of four rows."""
    a_source(folder / "in")
    source = {"uri": str(folder / "in"), "shard": {"files": 1}}
    return a_files_spec(folder, "draws", **{"source": source, **changes})


def run(spec, **kwargs):
    return BatchRunner(spec).run(progress=None, **kwargs)


def letters(spec):
    found = Path(spec.sink.uri).glob("_checkpoint/errors/*.jsonl")
    return [json.loads(line) for path in sorted(found) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("batch_format", FORMATS)
def test_every_file_comes_out_with_its_bytes(tmp_path, batch_format):
    """Against the disk and hashlib; names and bytes of any kind, empty files too."""
    for name, data in CONTENT.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    spec = a_files_spec(
        tmp_path,
        "as_named",
        source={"uri": str(tmp_path / "in"), "format": "files"},
        execution={"engine": "local", "batch_format": batch_format},
        capability={"deterministic": True},
    )

    assert run(spec).rows_out == len(CONTENT)
    assert files_in(tmp_path / "out") == CONTENT
    assert misfits(tmp_path / "out") == []
    result = verify(spec, checks=Checks(replay=1))
    assert (result.findings, result.rows_out) == ((), len(CONTENT))


def test_the_lines_of_parts_have_the_other_columns(tmp_path):
    """The parts are JSON lines, which any reader of these reads; the bytes are not in them."""
    run(drawing(tmp_path))
    lines = rows_out(tmp_path / "out")

    assert [line["id"] for line in lines] == list(range(12))
    assert [list(line) for line in lines] == [["path", "id", "size", "sha256"]] * 12
    assert [path.suffix for path in parts(tmp_path / "out")] == [".jsonl"] * 3
    assert not list((tmp_path / "out/_checkpoint").glob("files/*"))


BAD = [
    {"path": "../escaped", "text": "x"},
    {"path": "/tmp/escaped", "text": "x"},
    {"path": "_SUCCESS", "text": "x"},
    {"path": "a\tb", "text": "x"},
    {"path": "GOOD", "text": "x"},
    {"path": "good/below", "text": "x"},
    {"path": "good", "text": "other"},
    {"path": "number", "text": None},
    {"path": "n" * 300, "text": "x"},
]


def test_a_bad_path_costs_its_row_and_no_other(tmp_path):
    """Each is a dead letter with its place; what the other rows name is there."""
    source = [{"path": "good", "text": "good"}, *BAD, {"path": "last", "text": ""}]
    write_jsonl(tmp_path / "in/a.jsonl", source)
    spec = a_files_spec(tmp_path, "from_lines")
    report = run(spec)

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 2, len(BAD))
    assert files_in(tmp_path / "out") == {"good": b"good", "last": b""}
    assert [json.loads(letter["raw"]) for letter in letters(spec)] == BAD
    assert not list(tmp_path.rglob("escaped*"))


def test_rows_that_failed_are_tried_again_once_their_path_is_free(tmp_path):
    """A file from before the run has the path of one; it stays as it is."""
    spec = drawing(tmp_path)
    (tmp_path / "out/1").mkdir(parents=True)
    (tmp_path / "out" / path_of(5)).write_bytes(b"mine")
    report = run(spec)
    before = files_in(tmp_path / "out")

    assert (report.rows_out, report.rows_failed) == (11, 1)
    assert before[path_of(5)] == b"mine"
    assert "other bytes" in letters(spec)[0]["message"]

    (tmp_path / "out" / path_of(5)).unlink()
    assert BatchRunner(spec).retry(rows=True, progress=None).rows_failed == 0
    after = files_in(tmp_path / "out")
    assert {p: d for p, d in after.items() if p != path_of(5)}.items() <= before.items()
    assert (len(after), misfits(tmp_path / "out")) == (12, [])
    assert verify(spec).ok


def test_rows_of_two_shards_that_name_one_path_are_not_one_file(tmp_path):
    """The first has it. With the same bytes both have."""
    for number, text in enumerate(("first", "second", "first")):
        write_jsonl(tmp_path / f"in/{number}.jsonl", [{"path": "a/x", "text": text}])
    source = {"uri": str(tmp_path / "in"), "shard": {"files": 1}}
    spec = a_files_spec(tmp_path, "from_lines", source=source)
    report = run(spec)

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 2, 1)
    assert files_in(tmp_path / "out") == {"a/x": b"first"}
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, [])


def test_a_path_that_is_taken_in_a_race_costs_its_shard_until_it_is_free(tmp_path, monkeypatch):
    """The part that won stands without a sentinel; its rows are not computed again."""
    log = tmp_path / "calls"
    spec = drawing(
        tmp_path, capability={"target": "file_sinks:counted", "fn_kwargs": {"log": str(log)}}
    )
    real = bundling._put

    def late(group, data, sink):  # another worker, between the look and the write
        sink.put_if_absent({path_of(5): b"theirs"})
        yield from real(group, data, sink)

    monkeypatch.setattr(bundling, "_put", late)
    report = run(spec)
    assert (report.ok, list(report.quarantined)) == (False, [1])
    assert "1/05.bin; `batchrunner retry SPEC` makes its rows again" in report.quarantined[1]
    calls = log.read_text()

    again = run(spec)
    assert (again.ok, list(again.quarantined), log.read_text()) == (False, [1], calls)

    monkeypatch.undo()
    (tmp_path / "out" / path_of(5)).unlink()
    assert run(spec).ok
    assert (log.read_text(), misfits(tmp_path / "out")) == (calls, [])
    assert verify(spec).ok


def clashing(folder):
    """Three shards that draw; the second names a path of the first, beside two of its own and a shared one."""
    rows = [["x", "a"], ["x", "b", "c", "same"], ["d", "same"]]
    for number, names in enumerate(rows):
        lines = [{"id": number, "path": name} for name in names]
        write_jsonl(folder / f"in/{number}.jsonl", lines)
    source = {"uri": str(folder / "in"), "shard": {"files": 1}}
    return a_files_spec(folder, "draws_unless_same", source=source)


def dies_before_its_files(spec, monkeypatch):
    """Run *spec*; the driver dies once all parts are there, and the files of shard 0."""
    real = bundling.publish_files

    def die(sentinel, **kwargs):
        if sentinel.shard == 1:
            raise KeyboardInterrupt
        real(sentinel, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(committing, "publish_files", die)
        # Another worker than that of shard 0, whose listing is older.
        patch.setattr(FileNames, "_taken", lambda *_: "")
        patch.setattr(FileNames, "_check", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            run(spec)


def test_a_path_of_another_shards_row_costs_one_row_after_a_kill(tmp_path, monkeypatch):
    """The part without a sentinel goes aside with the files that were published of it, and no others."""
    spec = clashing(tmp_path)
    dies_before_its_files(spec, monkeypatch)
    first = files_in(tmp_path / "out")["x"]
    report = run(spec)

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 7, 1)
    assert files_in(tmp_path / "out")["x"] == first
    assert ("x" in letters(spec)[-1]["raw"], misfits(tmp_path / "out")) == (True, [])
    (aside,) = (tmp_path / "out/_damaged").iterdir()
    assert (aside / "part-00001.jsonl").exists()
    assert files_in(aside).keys() >= {"b", "c"}
    assert verify(spec).ok


@pytest.mark.parametrize("moves", range(3))
def test_a_driver_that_dies_while_it_puts_a_part_aside_is_followed_by_one_that_does(
    tmp_path, monkeypatch, moves
):
    """Before each of its moves, of which the part's is the last."""
    spec = clashing(tmp_path)
    dies_before_its_files(spec, monkeypatch)
    real, moved = LocalStorage.move, []

    def die(self, entry, target):
        if len(moved) == moves:
            raise KeyboardInterrupt
        moved.append(entry.key)
        return real(self, entry, target)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "move", die)
        patch.setattr(retiring, "_AT_ONCE", 1)
        with pytest.raises(KeyboardInterrupt):
            run(spec)
    assert "part-00001.jsonl" not in moved
    report = run(spec)

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 7, 1)
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, [])


def test_retry_makes_a_shard_again_whose_path_is_still_taken(tmp_path, monkeypatch):
    """The row of that path fails by itself; the file that was there is never touched."""
    spec = drawing(tmp_path)
    real = bundling._put

    def late(group, data, sink):
        sink.put_if_absent({path_of(5): b"theirs"})
        yield from real(group, data, sink)

    with monkeypatch.context() as patch:
        patch.setattr(bundling, "_put", late)
        assert list(run(spec).quarantined) == [1]
    report = BatchRunner(spec).retry(progress=None)

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 11, 1)
    assert (tmp_path / "out" / path_of(5)).read_bytes() == b"theirs"
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, [path_of(5)])


def test_a_changed_file_gives_its_paths_to_its_successor(tmp_path):
    """The old files are kept aside with their part, and those of other shards are not touched."""
    spec = drawing(tmp_path)
    run(spec)
    before = files_in(tmp_path / "out")
    write_jsonl(tmp_path / "in/in-001.jsonl", [{"id": 5}, {"id": 6}])
    report = run(spec)
    after = files_in(tmp_path / "out")

    assert (report.ok, report.rows_out, misfits(tmp_path / "out")) == (True, 10, [])
    retired = tmp_path / "out/_retired"
    assert files_in(retired / "part-00001") == {path_of(n): before[path_of(n)] for n in range(4, 8)}
    assert lines_of(retired / "part-00001.jsonl")[0]["id"] == 4
    assert {p for p in after if after[p] == before[p]} == after.keys() - {path_of(5), path_of(6)}
    assert verify(spec).ok
    assert run(spec).shards_new == 0


def test_a_file_that_other_parts_list_too_stays_when_one_is_retired(tmp_path):
    """Where names are hashes of content, a file may be of several rows."""
    for number in range(2):
        write_jsonl(tmp_path / f"in/{number}.jsonl", [{"path": "x", "text": "same"}])
    source = {"uri": str(tmp_path / "in"), "shard": {"files": 1}}
    spec = a_files_spec(tmp_path, "from_lines", source=source)
    run(spec)
    write_jsonl(tmp_path / "in/1.jsonl", [{"path": "yy", "text": "other"}])
    run(spec)

    assert files_in(tmp_path / "out") == {"x": b"same", "yy": b"other"}
    assert verify(spec).ok


@pytest.mark.parametrize(
    ("damage", "kind", "why"),
    [
        (lambda path: path.unlink(), "missing", "1 of its files are gone, such as 1/05.bin"),
        (lambda path: path.write_bytes(b"x"), "size", "another size than it lists"),
        (
            lambda path: path.write_bytes(bytes(24)),
            "checksum",
            r"other bytes than it lists \(SHA-256\)",
        ),
    ],
)
def test_a_damaged_file_is_found_and_its_shard_made_again(tmp_path, damage, kind, why):
    """All its files are made again, for they are of one attempt; nothing is removed."""
    spec = drawing(tmp_path)
    run(spec)
    before = files_in(tmp_path / "out")
    damage(tmp_path / "out" / path_of(5))

    (finding,) = verify(spec).findings
    assert (finding.kind, finding.part) == (kind, "part-00001.jsonl")
    assert finding.why.startswith(why.replace("\\", "")) or why.replace("\\", "") in finding.why
    assert repair(spec).to_recompute == [1]
    (damaged,) = (tmp_path / "out/_damaged").iterdir()
    kept = files_in(damaged)
    assert {path: before[path] for path in map(path_of, (4, 6, 7))}.items() <= kept.items()

    assert run(spec).ok
    after = files_in(tmp_path / "out")
    assert {p for p in before if before[p] == after[p]} == set(
        map(path_of, [0, 1, 2, 3, 8, 9, 10, 11])
    )
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, [])


def torn(part):
    part.write_bytes(part.read_bytes()[:-30])


def of_other_bytes(part):
    part.write_bytes(bytes(part.stat().st_size))


@pytest.mark.parametrize("damage", [Path.unlink, torn, of_other_bytes])
def test_a_part_that_is_lost_or_torn_is_made_again_with_other_bytes(tmp_path, damage):
    """The checkpoint says which files are its: they move aside, and no one else's do."""
    spec = drawing(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_bytes(b"mine")
    run(spec)
    before = files_in(tmp_path / "out")
    damage(tmp_path / "out/part-00001.jsonl")

    assert "1 files in the sink are listed by no part, such as mine:" in verify(spec).notes[0]
    assert repair(spec).to_recompute == [1]
    (damaged,) = (tmp_path / "out/_damaged").iterdir()
    assert files_in(damaged) == {path: before[path] for path in map(path_of, range(4, 8))}
    report = run(spec)
    assert (report.ok, report.rows_out, report.rows_failed) == (True, 12, 0)
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, ["mine"])
    after = files_in(tmp_path / "out")
    assert {p for p in after if after[p] == before[p]} == before.keys() - set(
        map(path_of, range(4, 8))
    )


@pytest.mark.parametrize("moves", range(5))
def test_a_repair_that_dies_is_done_by_the_next(tmp_path, monkeypatch, moves):
    """Of a part that is gone: the sentinel, which names the record of its paths, goes last."""
    spec = drawing(tmp_path)
    run(spec)
    (tmp_path / "out/part-00001.jsonl").unlink()
    real, real_delete, done = LocalStorage.move, LocalStorage.delete_exactly, []

    def counted(call):
        def one(self, entry, *args):
            if len(done) == moves:
                raise KeyboardInterrupt
            done.append(entry)
            return call(self, entry, *args)

        return one

    def delete(self, entries):
        (entry,) = entries
        if entry.key.startswith("sentinels/"):
            return counted(lambda s, e: real_delete(s, [e]))(self, entry)
        return real_delete(self, [entry])

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "move", counted(real))
        patch.setattr(LocalStorage, "delete_exactly", delete)
        with pytest.raises(KeyboardInterrupt):
            repair(spec)
    repair(spec)
    assert (run(spec).rows_failed, misfits(tmp_path / "out")) == (0, [])
    assert verify(spec).ok


def test_a_part_that_is_gone_is_found_with_its_files_unlisted(tmp_path):
    """Of an earlier version: nothing says whose they are; they stay, and a capability that makes the same is fine."""
    bytes_ = tmp_path / "bytes"
    bytes_.write_bytes(b"same")
    a_source(tmp_path / "in")
    source = {"uri": str(tmp_path / "in"), "shard": {"files": 1}}
    capability = {"fn_kwargs": {"path": str(bytes_)}}
    spec = a_files_spec(tmp_path, "content", source=source, capability=capability)
    run(spec)
    (tmp_path / "out/part-00001.jsonl").unlink()
    shutil.rmtree(tmp_path / "out/_checkpoint/paths")
    result = verify(spec)

    assert [finding.kind for finding in result.findings] == ["missing"]
    assert "4 files in the sink are listed by no part, such as 0/04.bin" in result.notes[0]
    repair(spec)
    assert run(spec).ok
    assert (verify(spec).findings, misfits(tmp_path / "out")) == ((), [])


def test_files_that_no_part_lists_are_noted_and_never_touched(tmp_path):
    """They are the user's, or of a run that ended: whatever they are called."""
    spec = drawing(tmp_path)
    run(spec)
    for name in ("notes.jsonl", "0/other.parquet"):
        (tmp_path / "out" / name).write_bytes(b"{}\n")

    result = verify(spec)
    assert (result.ok, result.notes[0].split(":")[0]) == (
        True,
        "2 files in the sink are listed by no part, such as 0/other.parquet",
    )
    repair(spec)
    run(spec, fresh=True)
    assert (tmp_path / "out/notes.jsonl").exists()
    assert misfits(tmp_path / "out") == ["0/other.parquet", "notes.jsonl"]


def test_starting_over_removes_what_the_parts_list_and_nothing_else(tmp_path):
    """Also what was retired. A file that has another size since is the user's."""
    spec = drawing(tmp_path)
    run(spec)
    write_jsonl(tmp_path / "in/in-001.jsonl", [{"id": 5}, {"id": 6}])
    run(spec)
    (tmp_path / "out" / path_of(0)).write_bytes(b"edited")
    changed = spec.model_copy(
        update={"source": spec.source.model_copy(update={"uri": str(tmp_path / "in2")})}
    )
    write_jsonl(tmp_path / "in2/a.jsonl", [{"id": 20}])
    run(changed, fresh=True)

    assert files_in(tmp_path / "out").keys() == {path_of(0), path_of(20)}
    assert files_in(tmp_path / "out")[path_of(0)] == b"edited"
    assert not files_in(tmp_path / "out/_retired")


def test_clean_removes_the_bundle_of_a_committed_shard_alone(tmp_path):
    """One of a shard without a sentinel is what its files are published from."""
    spec = drawing(tmp_path)
    run(spec)
    folder = tmp_path / "out/_checkpoint/files"
    folder.mkdir(exist_ok=True)
    for name in ("part-00001.0", "part-00009.0"):
        (folder / name).write_bytes(b"1")
    storage = LocalStorage(str(tmp_path / "out/_checkpoint"))
    items = Garbage(Checkpoint.current(storage), sink=LocalStorage(str(tmp_path / "out"))).remove()

    assert [(item.kind, item.key) for item in items] == [("bundle", "files/part-00001.0")]
    assert [path.name for path in folder.iterdir()] == ["part-00009.0"]


def test_a_bundle_that_is_gone_is_found_and_its_shard_made_again(tmp_path, monkeypatch):
    """Somebody removed it between the part and the files: what is listed cannot be published."""
    spec = drawing(tmp_path)

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundling, "_put", die)
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "out/_checkpoint/files")

    findings = verify(spec).findings
    assert {finding.kind for finding in findings} == {"unadopted"}
    repair(spec)
    assert run(spec).ok
    assert (verify(spec).ok, misfits(tmp_path / "out")) == (True, [])


def test_a_killed_run_goes_on_and_publishes_each_file_once(tmp_path):
    """By SIGKILL, with the installed command: what is committed is not touched again."""
    a_source(tmp_path / "in", shards=12)
    a_spec_file(
        tmp_path,
        capability={"target": "capabilities:slow_files", "version": "1"},
        source={"uri": "in", "shard": {"files": 1}},
        sink={"uri": "out", "format": "files"},
    )
    assert 3 <= killed_with_parts(tmp_path) <= 12
    sentinels = [json.loads(p.read_bytes()) for p in tmp_path.glob("out/_checkpoint/sentinels/*")]
    listed = [line for s in sentinels for line in lines_of(tmp_path / "out" / s["part"])]
    before = {line["path"]: (tmp_path / "out" / line["path"]).stat().st_ino for line in listed}

    assert batchrunner("run", "spec.yaml", cwd=tmp_path).returncode == 0
    assert before.items() <= {p: (tmp_path / "out" / p).stat().st_ino for p in before}.items()
    assert (len(files_in(tmp_path / "out")), misfits(tmp_path / "out")) == (48, [])


def test_one_row_at_a_time_and_in_a_process_of_its_own(tmp_path):
    """Files travel through a pipe as they are."""
    a_source(tmp_path / "in", shards=1)
    spec = a_files_spec(tmp_path, "draws", errors={"batch_timeout": 600, "max_row_errors": 0})
    assert run(spec).rows_out == 4
    assert misfits(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("source", "sink"),
    [("data", "data/out"), ("out/*.bin", "out"), ("d/**/*.bin", "d/e"), ("d/*/[ab]?.bin", "d/e")],
)
def test_a_sink_in_its_source_is_refused(tmp_path, source, sink):
    """The next run would read its own files as new ones."""
    (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
    source = {"uri": str(tmp_path / source), "format": "files"}
    sink = {"uri": str(tmp_path / sink), "format": "files"}
    with pytest.raises(InvalidSpecError, match="lies in the source"):
        run(a_spec(tmp_path, source=source, sink=sink))


def test_a_source_below_the_sink_gets_no_file(tmp_path):
    """A row that names one there fails: the next run would read it."""
    write_jsonl(
        tmp_path / "out/in/a.jsonl",
        [{"path": "in/b.jsonl", "text": "x"}, {"path": "c", "text": ""}],
    )
    spec = a_files_spec(tmp_path, "from_lines", source=str(tmp_path / "out/in"))

    assert (run(spec).rows_failed, run(spec).rows_failed) == (1, 1)
    assert sorted(os.listdir(tmp_path / "out/in")) == ["a.jsonl"]


def test_parts_of_a_sink_of_files_are_not_compressed_and_have_no_schema(tmp_path):
    """Both would be of the lines alone, and seem to be of the files."""
    for more in ({"compression": "gz"}, {"schema": {"path": "string"}}):
        with pytest.raises(InvalidSpecError):
            a_spec(tmp_path, sink={"uri": str(tmp_path / "out"), "format": "files", **more})
