"""A run never reads what it wrote, reads no file twice, and says what it passes over."""

from __future__ import annotations

import gzip
import logging
import os
import re

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint.incarnations import example_keys
from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.storage.keys import is_hidden
from builders import a_source, a_spec, rows, rows_out, write_jsonl


def echo(folder, **changes):
    return a_spec(folder, **{"capability": "capabilities:echo", **changes})


def everything(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def is_refused(folder, spec, match):
    before = everything(folder)
    for act in (BatchRunner(spec).plan, BatchRunner(spec).run):
        with pytest.raises(InvalidSpecError, match=match) as refusal:
            act()
        assert refusal.value.exit_code == 2
    assert everything(folder) == before


def ids(folder):
    return sorted(row["id"] for row in rows_out(folder / "out"))


def notes(folder, **changes):
    """What plan says, which must be what run says."""
    seen = BatchRunner(echo(folder, **changes)).plan().notes
    return list(seen)


def test_a_sink_below_the_source_through_a_link_is_refused(tmp_path):
    """Each rerun read the output of the one before: 20, 40, 60 rows, exit 0."""
    a_source(tmp_path / "in")
    (tmp_path / "lnk").symlink_to("in")

    is_refused(tmp_path, echo(tmp_path, sink=str(tmp_path / "lnk/o")), "lies in the source")


def test_a_source_that_is_a_link_to_what_holds_the_sink_is_refused(tmp_path):
    """The same, the other way round."""
    a_source(tmp_path / "in")
    (tmp_path / "lnk").symlink_to("in")
    spec = echo(tmp_path, source=str(tmp_path / "lnk/*"), sink=str(tmp_path / "in"))

    is_refused(tmp_path, spec, "lies in the source")


@pytest.mark.parametrize(
    "source", ["in", {"uri": "in", "format": "jsonl"}, "in/**", "in/*/*/*", "lnk"]
)
@pytest.mark.parametrize("place", ["in/ck", "lnk/ck"])
def test_a_checkpoint_below_the_source_is_refused(tmp_path, monkeypatch, source, place):
    """The run read its own records as rows."""
    monkeypatch.chdir(tmp_path)
    a_source(tmp_path / "in")
    write_jsonl(tmp_path / "in/sub/deep/x.jsonl", rows(50, 1))
    (tmp_path / "lnk").symlink_to("in")

    is_refused(
        tmp_path, echo(tmp_path, source=source, checkpoint_dir=place), "the checkpoint .* lies"
    )


def test_a_checkpoint_below_a_source_of_tables_is_refused(tmp_path, monkeypatch):
    """The stored plan has a column `id`: its rows even looked right."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "in/a.parquet")
    source = {"uri": "in", "format": "parquet"}

    is_refused(tmp_path, echo(tmp_path, source=source, checkpoint_dir="in/ck"), "the checkpoint")


@pytest.mark.parametrize("place", ["in/_ck", "in/.ck", "ck", "in2/ck"])
def test_a_checkpoint_where_no_source_looks_is_fine(tmp_path, monkeypatch, place):
    """What is hidden is never data, and a common beginning of two names is no common folder."""
    monkeypatch.chdir(tmp_path)
    a_source(tmp_path / "in")

    for _ in range(2):
        assert BatchRunner(echo(tmp_path, checkpoint_dir=place)).run().ok
    assert ids(tmp_path) == list(range(12))


@pytest.mark.parametrize("source", ["out/part-*", "out", "out/_retired", "out/part-00000.jsonl"])
def test_a_source_below_the_sink_that_reads_parts_is_refused(tmp_path, monkeypatch, source):
    """It would be its own input."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "out/part-00000.jsonl", rows(0, 2))
    write_jsonl(tmp_path / "out/_retired/part-00001.jsonl", rows(0, 2))

    is_refused(tmp_path, echo(tmp_path, source=source), "lies in the source")


@pytest.mark.parametrize("source", ["out/_checkpoint", "out/_checkpoint/sentinel_index/*.jsonl"])
def test_a_source_in_the_checkpoint_is_refused(tmp_path, monkeypatch, source):
    """Its records grow with each run of it."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "out/_checkpoint/sentinel_index/x.jsonl", rows(0, 2))

    is_refused(tmp_path, echo(tmp_path, source=source), "the checkpoint .* lies")


@pytest.mark.parametrize(
    ("source", "format"),
    [
        ("*/*/*/*.jsonl", "jsonl"),
        ("*/*/errors/*.jsonl", "jsonl"),
        ("*/run-*/errors/*.jsonl", None),
        ("*/run-*.json", "jsonl"),
        ("*/run-*.json", "json"),
        ("*/schema/*", "arrow"),
        ("*/schema/*", "files"),
        ("*/schema/*", None),
        ("*/run-0001/*/*.arrow", "arrow"),
        ("*/run-0001/*/*.arrow", None),
        ("*/logs/*/*", "jsonl"),
        ("*/logs/*/*", "text"),
        ("*/recorded/*", "jsonl"),
        ("*/recorded/*", "json"),
    ],
)
def test_a_glob_over_any_folder_of_a_checkpoint_is_refused(tmp_path, source, format):
    """Dead letters after a `--fresh` lie one folder deeper: the next run read them as rows."""
    uris = {"uri": str(tmp_path / source), "format": format}

    is_refused(
        tmp_path, echo(tmp_path, source=uris, checkpoint_dir=str(tmp_path / "ck")), "the checkpoint"
    )


@pytest.mark.parametrize("format", ["jsonl", "text", "csv", "parquet", "json", "tar"])
def test_a_glob_over_a_checkpoint_reads_no_file_of_another_format(tmp_path, format):
    """What is not refused is not read: a schema is a file of Arrow, whatever the spec calls it."""
    schema = tmp_path / "ck/schema/0001.arrow"
    schema.parent.mkdir(parents=True)
    schema.write_bytes(b"{}\n")
    write_jsonl(tmp_path / "in/a.jsonl", rows(0, 1))
    source = {"uri": str(tmp_path / "*/schema/*"), "format": format}

    with pytest.raises((InvalidSpecError, ObjectNotFoundError)):
        BatchRunner(echo(tmp_path, source=source, checkpoint_dir=str(tmp_path / "ck"))).plan()


def test_each_kind_of_key_that_runs_leave_has_an_example(tmp_path):
    """A source is compared with the examples alone: a kind without one could be read as input."""
    checkpoint = tmp_path / "ck"
    fields = {
        "capability": "capabilities:raises_on_bad",
        "sink": {"uri": str(tmp_path / "out"), "format": "parquet"},
        "checkpoint_dir": str(checkpoint),
        "errors": {"max_row_errors": 1},
    }
    kinds = set()
    for number, fresh in enumerate((False, False, True)):
        row = {"id": number, f"new_{number}": 1}
        write_jsonl(tmp_path / f"in/{number}.jsonl", [{**row, "bad": True}, row])
        BatchRunner(echo(tmp_path, **fields)).run(fresh=fresh)
        files = (path for path in checkpoint.rglob("*") if path.is_file())
        keys = (str(path.relative_to(checkpoint)) for path in files)
        kinds |= {kind_of(key) for key in keys if not is_hidden(key)}

    assert {"run.json", "run-#.json", "schema", "run-#/errors"} <= kinds
    assert kinds <= {kind_of(key) for key in example_keys()}


def kind_of(key):
    """Return the folder of *key*, or its name where that is the root of a run; # is a number."""
    run, key = re.fullmatch(r"(run-\d+/)?(.*)", key).groups(default="")
    return re.sub(r"\d+", "#", run + key.partition("/")[0])


@pytest.mark.parametrize(
    "target", ["out/part-00000.jsonl", "out/_checkpoint/sentinel_index/x.jsonl"]
)
def test_a_link_in_the_source_to_what_the_run_writes_is_refused(tmp_path, target):
    """A link hides what it leads to."""
    a_source(tmp_path / "in")
    write_jsonl(tmp_path / target, rows(0, 2))
    (tmp_path / "in/z.jsonl").symlink_to(tmp_path / target)

    is_refused(tmp_path, echo(tmp_path), r"in/z\.jsonl is a link to .*, which this run writes")


def twice(folder, how):
    """Give the source a file that is reached twice; return what its spec names."""
    source = folder / "in"
    if how == "link":
        (source / "in-000-again.jsonl").symlink_to("in-000.jsonl")
    elif how == "link before it":
        (source / "a-link.jsonl").symlink_to("in-000.jsonl")
    elif how == "hard link":
        (source / "in-000-again.jsonl").hardlink_to(source / "in-000.jsonl")
    elif how == "two folders":
        (folder / "other").symlink_to("in")
        return [str(source), str(folder / "other")]
    elif how == "dots":
        return [str(source), str(source / "../in/in-000.jsonl")]
    elif how == "globs":
        return [str(source / "in-*.jsonl"), str(source / "*-000.jsonl")]
    return str(source)


@pytest.mark.parametrize(
    "how", ["link", "link before it", "hard link", "two folders", "dots", "globs"]
)
def test_a_file_that_is_reached_twice_is_read_once(tmp_path, how, caplog):
    """One warning names it, under both names where it has two."""
    source = twice(a_source(tmp_path / "in").parent, how)
    caplog.set_level(logging.WARNING)

    for _ in range(2):
        report = BatchRunner(echo(tmp_path, source=source)).run()
        assert (report.ok, report.rows_out) == (True, 12)
    assert ids(tmp_path) == list(range(12))
    first, second = caplog.messages
    assert first == second
    assert "in-000.jsonl" in first
    assert "read once" in first
    if how not in ("dots", "globs"):
        assert " are one file" in first
    assert notes(tmp_path, source=source) == [first]


def test_the_name_that_is_no_link_is_the_one_that_is_read(tmp_path):
    """The link may go at any time."""
    source = twice(a_source(tmp_path / "in").parent, "link before it")
    BatchRunner(echo(tmp_path, source=source)).run()
    (tmp_path / "in/a-link.jsonl").unlink()

    assert BatchRunner(echo(tmp_path, source=source)).run().shards_new == 0


def test_a_new_name_for_a_planned_file_takes_nothing_out_of_the_plan(tmp_path):
    """A hard link that sorts before it is another name, and not the file's own."""
    a_source(tmp_path / "in")
    BatchRunner(echo(tmp_path)).run()
    (tmp_path / "in/a.jsonl").hardlink_to(tmp_path / "in/in-001.jsonl")

    report = BatchRunner(echo(tmp_path)).run()

    assert (report.shards, report.shards_new, ids(tmp_path)) == (3, 0, list(range(12)))


def test_two_files_of_one_size_and_time_are_two(tmp_path):
    """Only what is one file on the disk is one."""
    a_source(tmp_path / "in", shards=2, rows_per_shard=2)
    for path in (tmp_path / "in").iterdir():
        os.utime(path, ns=(7, 7))

    assert BatchRunner(echo(tmp_path)).run().rows_out == 4
    assert notes(tmp_path) == []


def test_files_that_are_passed_over_are_counted(tmp_path, caplog):
    """Half of a data set may be called .json: a user who sees that 4 files are left out can act."""
    a_source(tmp_path / "in")
    for name in ("a.json", "b.jsonlines", "c.jsonl.lz4", "sub/part-00000"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("{}\n")
    for name in ("_SUCCESS", ".crc", "_tmp/x", "sub/.y"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in/folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/broken.jsonl").symlink_to("nothing")
    (tmp_path / "in/_hidden").symlink_to("nothing")

    BatchRunner(echo(tmp_path)).run()

    (note,) = notes(tmp_path)
    assert note == (
        f"source {tmp_path}/in: passed over 4 file(s) whose names say no format (a.json, "
        "b.jsonlines, c.jsonl.lz4, ...) and 2 link(s) to folders or to nothing (broken.jsonl, "
        "folder); to read them, name them in source.uri, with source.format"
    )
    assert caplog.messages == [note]


def test_a_glob_passes_nothing_over(tmp_path):
    """It says what it wants."""
    a_source(tmp_path / "in")
    (tmp_path / "in/README.md").write_text("")

    assert notes(tmp_path, source=str(tmp_path / "in/*.jsonl")) == []


@pytest.mark.parametrize(
    ("shard", "name", "noted"),
    [
        ({"bytes": 4096}, "a.jsonl.gz", True),
        ({"rows": 1}, "a.jsonl.gz", False),
        ({"files": 1}, "a.jsonl.gz", False),
        ({"rows": 1}, "a.jsonl", False),
    ],
)
def test_small_shards_of_a_file_that_cannot_be_cut_are_noted(tmp_path, shard, name, noted):
    """The user asked for them so that a kill costs little, and it costs the whole file."""
    (tmp_path / "in").mkdir()
    text = b'{"id": 1}\n{"id": "%s"}\n' % os.urandom(5000).hex().encode()
    (tmp_path / "in" / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)

    seen = notes(tmp_path, source={"uri": str(tmp_path / "in"), "shard": shard})

    assert ["cannot be cut" in note for note in seen] == [True] * noted
