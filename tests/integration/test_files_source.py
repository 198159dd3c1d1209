"""A folder of files, whatever they hold, is a source: each file is a row, and none is lost or altered."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import mkdocs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_value_corpus import ONE_QUICKLY

import damage
from batchrunner import BatchRunner
from batchrunner.formats import files_reader
from batchrunner.testing.memory import MemoryStorage
from batchrunner.verify import Checks, verify
from builders import a_spec, parts
from command import a_spec_file, batchrunner
from killing import killed_with_parts

EVERYTHING = Checks(keys=("path",), replay=1)
FORMATS = ("rows", "numpy", "pandas", "pyarrow")
CONTENT = {
    "empty.png": b"",
    "a picture.png": bytes(range(256)) * 40,
    "deep/er/sound.WAV": b"\x00\xff",
    "no-extension": b"{}",
    "rows.jsonl.gz": b"not really",
    "table.parquet": b"PAR1",
    "ä€𝄞.pdf": b"%PDF\r\n",
}
"""None is what its name says, and all are taken as they are."""
HIDDEN = {".DS_Store": b"x", "_SUCCESS": b"", "deep/.git/config": b"x"}


def identity(batch):
    return batch


def write(folder, content):
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(10**18, 1_234_567_890_123_456_789))


def a_files_spec(folder, *, content=CONTENT, **changes):
    write(folder / "in", content)
    source = {"uri": str(folder / "in"), "format": "files", **changes.pop("source", {})}
    capability = {"target": "capabilities:echo", "deterministic": True}
    return a_spec(folder, **{"source": source, "capability": capability, **changes})


def expected(folder, content=CONTENT):
    """The rows, from the content that was written."""
    when = dt.datetime(2009, 2, 13, 23, 31, 30, 123456, tzinfo=dt.UTC)
    return [
        {"path": str(folder / "in" / name), "size": len(data), "bytes": data, "modified": when}
        for name, data in sorted(content.items())
    ]


def written(folder):
    return [row for part in parts(folder / "out") for row in pq.read_table(part).to_pylist()]


def kinds_of(report):
    return [(str(finding.kind), finding.why) for finding in report.findings]


@pytest.mark.parametrize("batch_format", FORMATS)
def test_each_file_is_a_row_with_its_bytes(tmp_path, batch_format):
    """Empty ones, too, and those whose names belong to other formats; hidden ones are none."""
    spec = a_files_spec(
        tmp_path,
        content={**CONTENT, **HIDDEN},
        execution={"engine": "local", "batch_format": batch_format},
    )
    report = BatchRunner(spec).run()
    (schema,) = {pq.read_schema(part) for part in parts(tmp_path / "out")}

    assert (report.ok, report.rows_in, report.rows_failed) == (True, len(CONTENT), 0)
    assert sorted(written(tmp_path), key=lambda row: row["path"]) == expected(tmp_path)
    assert schema.equals(
        pa.schema(
            {
                "path": pa.string(),
                "size": pa.int64(),
                "bytes": pa.binary(),
                "modified": pa.timestamp("us", "UTC"),
            }
        )
    )
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_without_their_bytes_files_are_not_read(tmp_path):
    """A listing of millions of large files costs a listing; the file may even be unreadable by now."""
    spec = a_files_spec(tmp_path, source={"columns": ["path", "size"]}, sink=a_jsonl(tmp_path))
    huge = tmp_path / "in/huge.bin"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_out) == (True, len(CONTENT) + 1)
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def a_jsonl(folder):
    return {"uri": str(folder / "out"), "format": "jsonl"}


def test_a_file_that_is_too_large_is_a_dead_letter_that_says_so(tmp_path, monkeypatch):
    """It costs itself, not the memory of the worker; and the way out is named."""
    spec = a_files_spec(tmp_path, errors={"max_row_errors": 1})
    monkeypatch.setattr(files_reader, "MAX_ROW_BYTES", 10_000)
    report = BatchRunner(spec).run()
    (letter,) = (tmp_path / "out/_checkpoint/errors").iterdir()

    assert (report.rows_in, report.rows_failed) == (len(CONTENT), 1)
    assert "a picture.png" in letter.read_text()
    assert (
        "10,240 bytes; at most 10,000 are read into a row: leave `bytes` out" in letter.read_text()
    )
    monkeypatch.undo()
    again = BatchRunner(spec).retry(rows=True)
    assert (again.rows_failed, again.rows_out) == (0, len(CONTENT))
    assert sorted(written(tmp_path), key=lambda row: row["path"]) == expected(tmp_path)
    assert kinds_of(verify(spec, checks=Checks(keys=("path",)))) == []


def test_a_glob_chooses_and_a_limit_ends(tmp_path):
    """As in every other format."""
    chosen = a_files_spec(tmp_path / "a", source={"uri": str(tmp_path / "a/in/**/*.p[dn]*")})
    first = a_files_spec(tmp_path / "b", source={"limit": 3})
    BatchRunner(chosen).run()
    BatchRunner(first).run()

    assert [Path(row["path"]).name for row in written(tmp_path / "a")] == [
        "a picture.png", "empty.png", "ä€𝄞.pdf",
    ]  # fmt: skip
    assert len(written(tmp_path / "b")) == 3


def test_folders_that_name_columns_add_them(tmp_path):
    """`label=cat/` is how many people keep pictures."""
    spec = a_files_spec(tmp_path, content={"label=cat/1.png": b"1", "label=dog/1.png": b"2"})
    BatchRunner(spec).run()

    assert [(row["label"], row["bytes"]) for row in written(tmp_path)] == [
        ("cat", b"1"), ("dog", b"2"),
    ]  # fmt: skip


def test_a_file_that_is_touched_is_the_same_and_one_that_changed_is_another(tmp_path):
    """Its time is that of the listing it was planned by, so that a replay gives the same row."""
    spec = a_files_spec(tmp_path)
    BatchRunner(spec).run()
    before = written(tmp_path)
    os.utime(tmp_path / "in/no-extension")
    touched = BatchRunner(spec).run()

    assert (touched.shards_new, written(tmp_path)) == (0, before)
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    (tmp_path / "in/no-extension").write_bytes(b"[]")
    changed = BatchRunner(spec).run()
    assert changed.shards_new >= 1
    assert {row["bytes"] for row in written(tmp_path)} == {
        *CONTENT.values(), b"[]",
    } - {b"{}"}  # fmt: skip
    assert len(written(tmp_path)) == len(CONTENT)
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_verify_finds_a_row_with_other_bytes(tmp_path):
    """By replay, from files that another reader read."""
    spec = a_files_spec(tmp_path, source={"shard": {"files": 1}})
    BatchRunner(spec).run()
    one = parts(tmp_path / "out")[0]
    table = pq.read_table(one)
    wrong = table.set_column(2, "bytes", pa.array([b"other"]))
    damage.rewritten_by(tmp_path / "out", 0, lambda path: pq.write_table(wrong, path) or 1)

    assert {kind for kind, _ in kinds_of(verify(spec, checks=EVERYTHING))} == {"replay"}


@pytest.mark.long
def test_killed_and_resumed_it_ends_with_each_file_once(tmp_path):
    """Of forty files."""
    content = {f"{n:03}.bin": bytes([n]) * n for n in range(40)}
    write(tmp_path / "in", content)
    a_spec_file(
        tmp_path,
        capability={"target": "capabilities:slow", "version": "1"},
        source={"uri": "in", "format": "files", "shard": {"files": 2}},
        execution={"engine": "local", "batch_size": 1},
    )
    before = killed_with_parts(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    checked = batchrunner("verify", "spec.yaml", "--key", "path", cwd=tmp_path)

    assert (resumed.returncode, checked.returncode) == (0, 0), resumed.stderr + checked.stdout
    assert 3 <= before < len(parts(tmp_path / "out"))
    assert written(tmp_path) == expected(tmp_path, content)


def test_from_a_store_the_time_is_that_of_its_clock(tmp_path, prefix):
    """A bucket's listing has it, and its identity has none."""
    store = MemoryStorage(prefix)
    store.put("in/a.bin", b"a")
    store.put("in/empty", b"")
    spec = a_spec(
        tmp_path,
        capability="capabilities:echo",
        source={"uri": f"memory://{prefix}/in", "format": "files"},
    )
    BatchRunner(spec).run()

    assert [(row["path"], row["bytes"], row["modified"].second) for row in written(tmp_path)] == [
        (f"memory://{prefix}/in/a.bin", b"a", 1),
        (f"memory://{prefix}/in/empty", b"", 2),
    ]


def test_what_the_format_cannot_do_is_said_before_anything_runs(tmp_path):
    """A column that no file has."""
    report = BatchRunner(a_files_spec(tmp_path, source={"columns": ["path", "width"]})).run()
    (reason,) = {failure.reason for failure in report.failures.values()}
    assert "no column 'width': a file has path, size, bytes, modified" in reason


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_a_folder_of_an_installed_package_is_read_as_it_is(tmp_path, batch_format):
    """Fonts, icons, scripts and pages, as others made them."""
    folder = Path(mkdocs.__file__).parent / "themes"
    expected = {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not any(p[0] in "._" for p in path.relative_to(folder).parts)
    }
    spec = a_spec(
        tmp_path,
        source={"uri": str(folder), "format": "files"},
        capability={"target": "capabilities:echo", "deterministic": True},
        execution={"engine": "local", "batch_format": batch_format},
    )
    report = BatchRunner(spec).run()

    assert len({Path(path).suffix for path in expected}) > 5
    assert (report.rows_out, report.rows_failed) == (len(expected), 0)
    assert {row["path"]: row["bytes"] for row in written(tmp_path)} == expected
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
