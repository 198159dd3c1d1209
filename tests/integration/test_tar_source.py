"""Tars as webdataset and GNU tar write them: each sample is a row, in every batch format, and none is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webdataset import TarWriter, writer
from webdataset.tariterators import group_by_keys, tar_file_iterator

import damage
from batchrunner import BatchRunner
from batchrunner.verify import Checks, verify
from buckets import Bucket
from builders import a_spec, parts
from command import a_spec_file, batchrunner
from killing import killed_with_parts
from tars import member, tar_of

EVERYTHING = Checks(keys=("__key__",), replay=1)
FORMATS = ("rows", "numpy", "pandas", "pyarrow")


def samples(first, count):
    return [
        {
            "__key__": f"{n:05}",
            "png": bytes([n % 256]) * (n * 37 % 5000),
            "cls": n % 10,
            "json": {"id": n, "text": "ä€𝄞"},
            "txt": f"row {n}",
        }
        for n in range(first, first + count)
    ]


def write_with_webdataset(folder, *, files=2, each=30, suffix="tar"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        with TarWriter(str(folder / f"{number}.{suffix}"), encoder=True) as made:
            for one in samples(number * each, each):
                made.write({**one, "png": one["png"]})


def as_webdataset_reads(folder, suffix="tar"):
    """The samples, by webdataset's own reader."""
    found = []
    for path in sorted(folder.glob(f"*.{suffix}")):
        with path.open("rb") as file, gzip.open(file) if suffix != "tar" else file as opened:
            members = ({**one, "__url__": ""} for one in tar_file_iterator(opened))
            found += group_by_keys(members)
    return [{name: value for name, value in one.items() if name != "__url__"} for one in found]


def a_tar_spec(folder, **changes):
    source = {"uri": str(folder / "in"), **changes.pop("source", {})}
    capability = {"target": "capabilities:echo", "deterministic": True}
    return a_spec(folder, **{"source": source, "capability": capability, **changes})


def written(folder):
    return [row for part in parts(folder / "out") for row in pq.read_table(part).to_pylist()]


def kinds_of(report):
    return [(str(finding.kind), finding.why) for finding in report.findings]


@pytest.fixture
def raw(monkeypatch):
    """Encode as webdataset does, but for pictures: the tests have the bytes of one."""
    monkeypatch.setitem(writer.default_handlers, "png", bytes)


@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.usefixtures("raw")
def test_what_webdataset_writes_is_read_as_webdataset_reads_it(tmp_path, batch_format, suffix):
    """Each member, byte for byte; found by the suffix alone, and verified in full."""
    write_with_webdataset(tmp_path / "in", suffix=suffix)
    spec = a_tar_spec(tmp_path, execution={"engine": "local", "batch_format": batch_format})
    report = BatchRunner(spec).run()
    found = written(tmp_path)

    assert (report.ok, report.rows_in, report.rows_failed) == (True, 60, 0)
    assert found == as_webdataset_reads(tmp_path / "in", suffix)
    assert [json.loads(row["json"])["id"] for row in found] == list(range(60))
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


@pytest.mark.parametrize("compression", ["none", "gz", "zst"])
@pytest.mark.usefixtures("raw")
def test_samples_are_written_as_webdataset_reads_them(tmp_path, compression):
    """From tars to tars, in batches of any size; the parts are the source of the next run."""
    write_with_webdataset(tmp_path / "in")
    sink = {"uri": str(tmp_path / "mid"), "format": "tar", "compression": compression}
    spec = a_tar_spec(tmp_path, sink=sink, execution={"engine": "local", "batch_size": 7})
    BatchRunner(spec).run()
    last = a_tar_spec(tmp_path, source={"uri": str(tmp_path / "mid")})
    BatchRunner(last).run()
    suffix = {"none": "tar", "gz": "tar.gz", "zst": "tar.zst"}[compression]

    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    assert written(tmp_path) == as_webdataset_reads(tmp_path / "in")
    if compression != "zst":  # which Python reads from 3.14 on
        assert as_webdataset_reads(tmp_path / "mid", suffix) == written(tmp_path)
    part = next((tmp_path / "mid").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert {kind for kind, _ in kinds_of(verify(spec))} == {"checksum"}


@pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "posix", "gnu --incremental"])
def test_what_gnu_tar_writes_is_read(tmp_path, layout):
    """In each of its layouts, folders included, with names that need more than a header.

    Where it writes times of access, Python's tarfile takes them for folders.
    """
    layout, *more = layout.split()
    deep = "d" * 60 if layout != "v7" else "d"
    folder = tmp_path / "files" / deep / ("e" * 60 if layout != "v7" else "e")
    folder.mkdir(parents=True)
    expected = {}
    for n in range(20):
        name = f"{n:03}" + ("f" * 40 if layout in ("oldgnu", "gnu", "posix") else "")
        expected[str((folder / name).relative_to(tmp_path / "files"))] = bytes([n]) * n * 100
        (folder / f"{name}.bin").write_bytes(bytes([n]) * n * 100)
    (tmp_path / "in").mkdir()
    command = ["tar", f"--format={layout}", *more, "--sort=name", "-cf", "../in/a.tar", deep]
    subprocess.run(command, cwd=tmp_path / "files", check=True)
    spec = a_tar_spec(tmp_path)
    BatchRunner(spec).run()

    assert {row["__key__"]: row["bin"] for row in written(tmp_path)} == expected
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_samples_of_other_members_are_rows_with_nulls(tmp_path):
    """A column that a sample lacks is null in Parquet, and only what is asked for is kept."""
    (tmp_path / "in").mkdir()
    pieces = [
        member("1.jpg", b"1"),
        member("2.txt", b"2"),
        member("2.jpg", b""),
        member("3.txt", b""),
    ]
    (tmp_path / "in/a.tar").write_bytes(tar_of(*pieces))
    spec = a_tar_spec(tmp_path)
    BatchRunner(spec).run()
    rows = [
        {"__key__": "1", "jpg": b"1", "txt": None},
        {"__key__": "2", "jpg": b"", "txt": b"2"},
        {"__key__": "3", "jpg": None, "txt": b""},
    ]

    assert written(tmp_path) == rows
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    chosen = a_tar_spec(
        tmp_path, source={"columns": ["__key__", "txt"]}, sink=str(tmp_path / "some")
    )
    assert BatchRunner(chosen).run().ok
    found = [pq.read_table(part).to_pylist() for part in sorted((tmp_path / "some").glob("part-*"))]
    assert found == [[{"__key__": row["__key__"], "txt": row["txt"]} for row in rows]]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_bad_samples_and_failed_rows_are_tried_again_from_where_they_stand(tmp_path, suffix):
    """`retry --rows` reads single samples by their positions."""
    mended = tmp_path / "mended"
    (tmp_path / "in").mkdir()
    pieces = [member(f"{n:02}.n", str(n).encode()) for n in range(20)]
    pieces.insert(5, member("README", b"not a sample"))
    data = tar_of(*pieces)
    (tmp_path / f"in/a.{suffix}").write_bytes(gzip.compress(data) if suffix != "tar" else data)
    spec = a_tar_spec(
        tmp_path,
        capability={"target": "samples:fails_on_three", "fn_kwargs": {"path": str(mended)}},
        source={"shard": {"rows": 7}},
        errors={"max_row_errors": 3},
    )
    first = BatchRunner(spec).run()
    mended.touch()
    again = BatchRunner(spec).retry(rows=True)

    assert (first.rows_in, first.rows_out, first.rows_failed) == (21, 18, 3)
    assert (again.rows_in, again.rows_out, again.rows_failed) == (21, 20, 1)
    assert sorted(row["__key__"] for row in written(tmp_path)) == [f"{n:02}" for n in range(20)]
    assert kinds_of(verify(spec, checks=Checks(keys=("__key__",)))) == []


@pytest.mark.usefixtures("raw")
def test_a_file_that_is_cut_short_costs_its_shard_and_is_named(tmp_path):
    """Both webdataset and tarfile end there, as if nothing were missing."""
    write_with_webdataset(tmp_path / "in")
    path = tmp_path / "in/1.tar"
    path.write_bytes(path.read_bytes()[: 512 * 100])
    report = BatchRunner(a_tar_spec(tmp_path)).run()
    (reason,) = {failure.reason for failure in report.failures.values()}

    assert (report.shards_new, report.rows_out) == (1, 30)
    assert "1.tar cannot be read as a tar" in reason


@pytest.mark.parametrize("batch_format", FORMATS)
def test_samples_of_other_members_are_written_as_they_were(tmp_path, batch_format):
    """A column that a sample lacks is no empty member, also where a table had null for it."""
    (tmp_path / "in").mkdir()
    pieces = [
        member("1.jpg", b"1"),
        member("2.txt", b""),
        member("2.jpg", b"2"),
        member("3.n", b"3"),
    ]
    (tmp_path / "in/a.tar").write_bytes(tar_of(*pieces))
    spec = a_tar_spec(
        tmp_path,
        sink={"uri": str(tmp_path / "out"), "format": "tar"},
        execution={"engine": "local", "batch_format": batch_format},
    )
    report = BatchRunner(spec).run()

    assert (report.rows_out, report.rows_failed) == (3, 0)
    assert as_webdataset_reads(tmp_path / "out") == as_webdataset_reads(tmp_path / "in")
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_a_row_that_no_tar_holds_is_a_dead_letter(tmp_path):
    """Text and numbers are for Parquet; the message says so."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar_of(member("1.n", b"1"), member("x.n", b"2")))
    spec = a_tar_spec(
        tmp_path,
        capability={"target": "samples:counted", "mode": "row"},
        sink={"uri": str(tmp_path / "out"), "format": "tar"},
        errors={"max_row_errors": 1},
    )
    report = BatchRunner(spec).run()
    (letters,) = (tmp_path / "out/_checkpoint/errors").iterdir()

    assert (report.rows_out, report.rows_failed) == (1, 1)
    assert (
        "the value of 'n' is of type int, and a tar holds bytes: convert it" in letters.read_text()
    )


def test_a_plan_says_that_only_rows_cut_a_tar(tmp_path):
    """A user who asked for small shards learns what to ask for."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar").write_bytes(tar_of(member("1.bin", bytes(9000)), member("2.bin", b"")))
    by_bytes = BatchRunner(a_tar_spec(tmp_path, source={"shard": {"bytes": 4096}})).plan()
    by_rows = BatchRunner(a_tar_spec(tmp_path, source={"shard": {"rows": 1}})).plan()

    assert [len(plan.pending) for plan in (by_bytes, by_rows)] == [1, 2]
    assert "1 files cannot be cut by bytes, and each is one shard" in by_bytes.notes[0]
    assert "`source.shard: {rows: …}` cuts them" in by_bytes.notes[0]
    assert not by_rows.notes


@pytest.mark.usefixtures("raw")
def test_a_file_that_was_touched_is_the_same_and_one_that_changed_is_another(tmp_path):
    """By the bytes of each shard."""
    write_with_webdataset(tmp_path / "in")
    spec = a_tar_spec(tmp_path, source={"shard": {"rows": 10}})
    BatchRunner(spec).run()
    before = written(tmp_path)
    os.utime(tmp_path / "in/0.tar")
    touched = BatchRunner(spec).run()
    assert (touched.shards_new, written(tmp_path)) == (0, before)

    path = tmp_path / "in/0.tar"
    path.write_bytes(path.read_bytes().replace(b"row 3", b"ROW 3", 1))
    changed = BatchRunner(spec).run()

    assert changed.shards_new == 3
    assert sorted(row["__key__"] for row in written(tmp_path)) == [f"{n:05}" for n in range(60)]
    assert {row["txt"] for row in written(tmp_path)} >= {b"ROW 3"}
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


@pytest.mark.usefixtures("raw")
def test_verify_sees_a_member_that_is_another(tmp_path):
    """By replay, and by keys."""
    write_with_webdataset(tmp_path / "in", files=1)
    spec = a_tar_spec(tmp_path, source={"shard": {"rows": 10}})
    BatchRunner(spec).run()
    table = pq.read_table(parts(tmp_path / "out")[1])
    keys = ["other", *table.column("__key__").to_pylist()[1:]]
    wrong = table.set_column(0, "__key__", pa.array(keys))
    damage.rewritten_by(tmp_path / "out", 1, lambda path: pq.write_table(wrong, path) or 10)

    found = {kind for kind, _ in kinds_of(verify(spec, checks=EVERYTHING))}
    assert found == {"key_missing", "key_unknown", "replay"}


@pytest.mark.long
def test_killed_and_resumed_it_ends_with_each_sample_once(tmp_path):
    """Cut by rows, so that a kill costs two samples, not the file."""
    (tmp_path / "in").mkdir()
    keys = [f"{n:03}" for n in range(60)]
    (tmp_path / "in/a.tar").write_bytes(tar_of(*[member(f"{key}.n", key.encode()) for key in keys]))
    a_spec_file(
        tmp_path,
        capability={"target": "capabilities:slow", "version": "1"},
        source={"uri": "in", "shard": {"rows": 2}},
        execution={"engine": "local", "batch_size": 1},
    )
    before = killed_with_parts(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    checked = batchrunner("verify", "spec.yaml", "--key", "__key__", cwd=tmp_path)

    assert 3 <= before < 30
    assert (resumed.returncode, checked.returncode) == (0, 0), resumed.stderr + checked.stdout
    assert written(tmp_path) == [{"__key__": key, "n": key.encode()} for key in keys]


def test_a_file_is_read_in_bounded_memory(tmp_path):
    """However many members it has, a few megabytes are held at a time."""
    from batchrunner.formats.tar import Tar
    from batchrunner.shard import Slice, Slicing

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for n in range(300):
            info = tarfile.TarInfo(f"{n}.bin")
            info.size = 200_000
            made.addfile(info, io.BytesIO(bytes(200_000)))
    data = out.getvalue()
    shard = Slice("a.tar", Slicing.FILE, 0, len(data), len(data), "1")
    chunks = Tar().read(io.BytesIO(data), shard, compression=None, columns=None, partition=())

    assert max(chunk.nbytes for chunk in chunks) <= 5 << 20


@pytest.mark.s3
@pytest.mark.parametrize("compression", [None, "gz"])
def test_a_tar_in_a_bucket_is_cut_read_and_verified_there(tmp_path, seaweedfs, prefix, compression):
    """By ranges: each slice from its own offset, and the headers alone for the plan."""
    bucket = Bucket(seaweedfs, prefix)
    pieces = [member(f"{n:03}.bin", bytes([n % 256]) * 9000) for n in range(300)]
    name = "a.tar.gz" if compression else "a.tar"
    bucket.put(f"in/{name}", tar_of(*pieces, compression=compression))
    spec = a_tar_spec(
        tmp_path,
        source={
            "uri": f"{bucket.uri}/in",
            "shard": {"rows": 70},
            "storage_options": bucket.storage_options,
        },
    )
    report = BatchRunner(spec).run()

    assert (report.ok, report.shards_new) == (True, 5)
    assert written(tmp_path) == [
        {"__key__": f"{n:03}", "bin": bytes([n % 256]) * 9000} for n in range(300)
    ]
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    bucket.put(f"in/{name}", tar_of(*pieces[:100], compression=compression))
    changed = BatchRunner(spec).run()
    assert (changed.ok, len(written(tmp_path))) == (True, 100)
    bucket.close()
