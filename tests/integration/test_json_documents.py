"""Files of JSON, an array or a document each: what comes out is what lines of the same rows give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml
from test_json_sources import FILES, FORMATS

from batchrunner import BatchRunner
from batchrunner.errors import InvalidSpecError
from batchrunner.verify import Checks, verify
from builders import a_spec, parts, rows, rows_out
from command import batchrunner
from killing import killed_with_parts

ECHO = {"target": "capabilities:echo", "deterministic": True}
EVERYTHING = Checks(keys=("id",), replay=1)


def write_arrays(folder, files, *, ending="json", between=",\n  "):
    """Arrays whose elements are the *files'* lines, as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        text = f"[\n  {between.join(lines)}\n]\n".encode()
        (folder / f"{name}.{ending}").write_bytes(gzip.compress(text) if "gz" in ending else text)


def write_lines(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))


def identity(batch):
    return batch


def run(folder, sink, *, shard=None, **execution):
    """Run over `in`; return what is in each part, and each dead letter's bytes and reason."""
    spec = a_spec(
        folder,
        capability={"target": "in:memory", "version": "1"},
        source={"uri": str(folder / "in"), "shard": shard},
        sink={"uri": str(folder / "out"), "format": sink},
        execution={"engine": "local", **execution},
        errors={"max_row_errors": 1.0, "retry": {"max_attempts": 1}},
    )
    report = BatchRunner(spec, capability=identity).run()
    assert report.ok, report.failures
    return b"".join(part.read_bytes() for part in parts(folder / "out")), dead_letters(folder)


def dead_letters(folder):
    paths = sorted((folder / "out/_checkpoint/errors").glob("*"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def raws(letters):
    return sorted((letter["raw"], letter["message"]) for letter in letters)


@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
def test_an_array_gives_what_its_elements_give_as_lines(tmp_path, batch_format, sink):
    """Byte for byte, dead letter for dead letter, whatever the batches, shards and compression."""
    write_lines(tmp_path / "lines/in", FILES)
    want, letters = run(tmp_path / "lines", sink, batch_format=batch_format)
    for ending, options in {
        "json": {},
        "json.gz": {"batch_size": 7},
    }.items():
        write_arrays(tmp_path / ending / "in", FILES, ending=ending)
        made, dead = run(tmp_path / ending, sink, batch_format=batch_format, **options)
        assert raws(dead) == raws(letters)
        assert made == want or sink == "parquet"
        if sink == "parquet":
            assert rows_out(tmp_path / ending / "out") == rows_out(tmp_path / "lines/out")


def test_the_cut_of_an_array_decides_nothing(tmp_path):
    """A row is the same in a shard of its own."""
    write_lines(tmp_path / "lines/in", FILES)
    want, letters = run(tmp_path / "lines", "jsonl")
    write_arrays(tmp_path / "cut/in", FILES, between="\n,\t")
    made, dead = run(tmp_path / "cut", "jsonl", shard={"rows": 2})

    assert made == want
    assert raws(dead) == raws(letters)
    assert len(parts(tmp_path / "cut/out")) > 20


def test_a_folder_of_documents_has_a_row_a_file(tmp_path):
    """As crawlers and annotation tools write them, on many lines."""
    (tmp_path / "in").mkdir()
    for row in rows(0, 12):
        (tmp_path / f"in/{row['id']:02}.json").write_text(json.dumps(row, indent=4) + "\n")
    (tmp_path / "in/05.json").write_text('{"id": 5, "text": oops}')
    spec = a_spec(tmp_path, capability=ECHO, errors={"max_row_errors": 1})
    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_in, report.rows_out) == (True, 12, 11)
    assert rows_out(tmp_path / "out") == [row for row in rows(0, 12) if row["id"] != 5]
    (letter,) = dead_letters(tmp_path)
    assert (letter["source"], letter["at"]) == (str(tmp_path / "in/05.json"), 0)
    assert verify(spec, checks=EVERYTHING).ok


def test_bad_and_failed_rows_are_tried_again_from_where_they_stand(tmp_path):
    """Each by the offset of its element, in a file that is cut, compressed, or neither."""
    for ending, shard in (("json", {"rows": 4}), ("json", None), ("json.gz", None)):
        folder = tmp_path / f"{ending}{shard}"
        mended = folder / "mended"
        lines = [json.dumps({**row, "bad": row["id"] in (3, 11)}) for row in rows(0, 30)]
        write_arrays(
            folder / "in", {"a": [*lines[:20], '{"id": 1, oops}', *lines[20:]]}, ending=ending
        )
        spec = a_spec(
            folder,
            capability={
                "target": "capabilities:fails_while_bad",
                "fn_kwargs": {"path": str(mended)},
            },
            source={"uri": str(folder / "in"), "shard": shard},
            errors={"max_row_errors": 5},
        )
        first = BatchRunner(spec).run()
        assert (first.rows_in, first.rows_out, first.rows_failed) == (31, 28, 3)
        text = f"[\n  {lines[0]}".encode()
        assert all(letter["at"] >= len(text) for letter in dead_letters(folder))
        mended.touch()
        again = BatchRunner(spec).retry(rows=True)

        assert (again.rows_in, again.rows_out, again.rows_failed) == (31, 30, 1)
        assert sorted(row["id"] for row in rows_out(folder / "out")) == list(range(30))
        assert verify(spec, checks=Checks(keys=("id",))).ok


@pytest.mark.long
def test_a_killed_run_is_finished_by_the_next(tmp_path):
    """Every row once, checked by keys."""
    write_arrays(tmp_path / "in", {"a": [json.dumps(row) for row in rows(0, 40)]})
    spec = {
        "capability": {"target": "capabilities:slow", "version": "1", "deterministic": True},
        "source": {"uri": "in", "shard": {"rows": 2}},
        "sink": "out",
        "execution": {"engine": "local", "batch_size": 1},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    before = killed_with_parts(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    checked = batchrunner("verify", "spec.yaml", "--key", "id", "--replay", "1", cwd=tmp_path)

    assert 3 <= before < 20
    assert (resumed.returncode, checked.returncode) == (0, 0), resumed.stderr + checked.stdout
    assert rows_out(tmp_path / "out") == rows(0, 40)


def test_lines_in_a_file_called_json_are_named_with_the_way_out(tmp_path):
    """Half of the world's .json files are lines."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json").write_text('{"id": 0}\n{"id": 1}\n')
    spec = a_spec(tmp_path, capability="capabilities:echo")
    report = BatchRunner(spec).run()
    (failure,) = report.failures.values()
    assert "a.json cannot be divided into rows: its document ends before byte 10" in failure.reason
    assert "source.format: jsonl" in failure.reason

    source = {"uri": str(tmp_path / "in/*.json"), "format": "jsonl"}
    other = a_spec(
        tmp_path, capability="capabilities:echo", source=source, sink=str(tmp_path / "o")
    )
    assert BatchRunner(other).run().ok
    assert rows_out(tmp_path / "o") == [{"id": 0}, {"id": 1}]


def test_parts_of_json_are_lines_unless_the_spec_says_more(tmp_path):
    """Parts are many files, and a reader of one array would want all."""
    write_arrays(tmp_path / "in", {"a": ['{"id": 0}']})
    run(tmp_path, None)
    assert [part.name for part in parts(tmp_path / "out")] == ["part-00000.jsonl"]

    write_arrays(tmp_path / "other/in", {"a": ['{"id": 0}']})
    with pytest.raises(InvalidSpecError, match="the format json is read, not written; use jsonl"):
        run(tmp_path / "other", "json")


def test_folders_give_columns_and_only_those_asked_for_are_kept(tmp_path):
    """As for lines."""
    write_arrays(tmp_path / "in/day=1", {"a": ['{"id": 0, "x": 1}', '{"id": 1, "day": "2"}']})
    spec = a_spec(
        tmp_path,
        capability="capabilities:echo",
        source={"uri": str(tmp_path / "in"), "columns": ["id", "day"]},
        errors={"max_row_errors": 1},
    )
    report = BatchRunner(spec).run()

    assert (report.rows_out, report.rows_failed) == (1, 1)
    assert rows_out(tmp_path / "out") == [{"id": 0, "day": "1"}]


@pytest.mark.parametrize("limit", [1, 5, 12, 99])
@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_a_limit_keeps_the_first_rows(tmp_path, ending, limit):
    """And verify counts them."""
    lines = [json.dumps(row) for row in rows(0, 12)]
    write_arrays(tmp_path / "in", {"a": lines}, ending=ending)
    source = {"uri": str(tmp_path / "in"), "limit": limit}
    spec = a_spec(tmp_path, capability="capabilities:echo", source=source)

    assert BatchRunner(spec).run().ok
    assert rows_out(tmp_path / "out") == rows(0, 12)[:limit]
    assert verify(spec).ok
    assert Path(tmp_path / "out/_SUCCESS").exists()
