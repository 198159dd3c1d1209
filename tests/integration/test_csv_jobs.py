"""CSV and text go through everything a run does: every batch format, kills, changes, retries, `verify`."""

from __future__ import annotations

import bz2
import csv
import io
import json
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import damage
import exact
from batchrunner import BatchRunner
from batchrunner.verify import Checks, verify
from builders import a_spec, parts, rows_out, write_jsonl
from command import batchrunner
from killing import killed_with_parts

EVERYTHING = Checks(keys=("id",), replay=1)
TYPES = {
    "id": "int32",
    "text": "string",
    "price": "decimal128(10, 2)",
    "share": "double",
    "day": "date32[day]",
    "at": "timestamp[us, tz=Europe/Berlin]",
    "ok": "bool",
}
SCHEMA = pa.schema(
    [
        ("id", pa.int32()),
        ("text", pa.string()),
        ("price", pa.decimal128(10, 2)),
        ("share", pa.float64()),
        ("day", pa.date32()),
        ("at", pa.timestamp("us", "Europe/Berlin")),
        ("ok", pa.bool_()),
    ]
)
LINES = [
    '{0},"a ""quoted""\nline, {0}",1.50,0.1,2026-01-02,2026-01-02 03:04:05.000006+01:00,true',
    '{0},"",,-0.0,,,',
    "{0},,-0.01,1e300,0001-01-01,1970-01-01T00:00:00Z,FALSE",
    '{0},"ä€𝄞\t",99999999.99,nan,9999-12-31,2026-07-01 00:00:00+02:00,0',
]


def a_file(path, first, count, *, opened=open, lines=LINES):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [lines[n % len(lines)].format(n) for n in range(first, first + count)]
    text = "".join(f"{line}\n" for line in [",".join(TYPES), *content])
    with opened(path, "wb") as file:
        file.write(text.encode())


def a_csv_spec(folder, **changes):
    fields = {
        "source": {
            "uri": str(folder / "in"),
            "format": "csv",
            "schema": TYPES,
            "shard": {"rows": 7},
        },
        "capability": {"target": "capabilities:echo", "deterministic": True},
    }
    return a_spec(folder, **{**fields, **changes})


def typed_by_hand(folder):
    """The rows by pyarrow's reader, which is told the types; its texts that are "" are null without quotes."""
    from pyarrow import csv as pa_csv

    convert = pa_csv.ConvertOptions(
        column_types=SCHEMA,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    tables = [
        pa_csv.read_csv(str(path), parse_options=parse, convert_options=convert)
        for path in sorted(folder.glob("*.csv"))
    ]
    return exact.rows(pa.concat_tables(tables))


def kinds_of(report):
    return [(str(finding.kind), finding.why) for finding in report.findings]


@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas", "pyarrow"])
def test_each_value_and_type_goes_through_each_batch_format(tmp_path, batch_format):
    """Into Parquet, which keeps the types, and into CSV and back, by their declaration."""
    for number in range(2):
        a_file(tmp_path / f"in/{number}.csv", number * 20, 20)
    expected = typed_by_hand(tmp_path / "in")
    execution = {"engine": "local", "batch_format": batch_format, "batch_size": 6}
    sinks = {name: {"uri": str(tmp_path / name), "format": name} for name in ("parquet", "csv")}
    for sink in sinks.values():
        spec = a_csv_spec(tmp_path, execution=execution, sink=sink)
        assert BatchRunner(spec).run().rows_out == 40
        assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    table = pa.concat_tables(pq.read_table(part) for part in parts(tmp_path / "parquet"))

    assert table.schema == SCHEMA
    assert exact.rows(table) == typed_by_hand(tmp_path / "csv") == expected


@pytest.mark.parametrize("declared", [True, False])
def test_rows_of_json_lines_become_csv(tmp_path, declared):
    """And come back: a column that only later rows have, null, and the empty text."""
    some = [{"id": n, "t": ["", None, 'a,"b"\n'][n % 3], "x": n / 4} for n in range(30)]
    write_jsonl(tmp_path / "in/a.jsonl", some[:20])
    write_jsonl(tmp_path / "in/b.jsonl", [{**row, "late": row["id"] > 25} for row in some[20:]])
    types = {"id": "int64", "t": "string", "x": "double", "late": "bool"}
    sink = {"uri": str(tmp_path / "out"), "format": "csv", "compression": "gz"} | (
        {"schema": types} if declared else {}
    )
    spec = a_spec(
        tmp_path, capability={"target": "capabilities:echo", "deterministic": True}, sink=sink
    )
    assert BatchRunner(spec).run().ok
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []

    if not declared:  # the parts before it lack the late column
        return
    back = a_spec(
        tmp_path,
        source={
            "uri": str(tmp_path / "out"),
            "format": "csv",
            "schema": types,
        },
        sink={"uri": str(tmp_path / "back"), "format": "jsonl"},
        capability="capabilities:echo",
    )
    found = BatchRunner(back).run()
    assert found.rows_out == 30
    assert [{**row, "late": row.get("late")} for row in rows_out(tmp_path / "back")] == [
        {**row, "late": row["id"] > 25 if row["id"] >= 20 else None} for row in some
    ]


@pytest.mark.parametrize("compression", ["none", "zst"])
def test_a_part_is_written_again_for_a_column_that_comes_late(tmp_path, monkeypatch, compression):
    """Its header is written by then; what stands in the sink at the end is one whole file."""
    monkeypatch.setattr("batchrunner.formats.csv_part.HELD_BYTES", 1)
    some = [{"id": n, **({"late": f"a\n{n}"} if n > 5 else {})} for n in range(12)]
    write_jsonl(tmp_path / "in/a.jsonl", some)
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:echo", "deterministic": True},
        sink={"uri": str(tmp_path / "out"), "format": "csv", "compression": compression},
        execution={"engine": "local", "batch_size": 2},
    )
    assert BatchRunner(spec).run().ok
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []
    (part,) = parts(tmp_path / "out")
    data = part.read_bytes()
    if compression == "zst":
        data = pa.CompressedInputStream(pa.py_buffer(data), "zstd").read()

    assert data.decode() == '"id","late"\n' + "".join(
        f'{n},"a\n{n}"\n' if n > 5 else f"{n},\n" for n in range(12)
    )


def test_a_value_that_csv_has_no_text_for_costs_its_row(tmp_path):
    """With its column and the way out; the other rows are written."""
    content = [{"id": n, "v": [1] if n == 3 else None} for n in range(5)]
    write_jsonl(tmp_path / "in/a.jsonl", content)
    sink = {"uri": str(tmp_path / "out"), "format": "csv"}
    spec = a_spec(tmp_path, capability="capabilities:echo", sink=sink, errors={"max_row_errors": 1})
    report = BatchRunner(spec).run()
    (letters,) = (tmp_path / "out/_checkpoint/errors").iterdir()

    assert (report.rows_out, report.rows_failed) == (4, 1)
    assert "column 'v': CSV has no text for list<" in letters.read_text()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_row_that_no_reader_of_csv_takes_costs_itself(tmp_path, batch_size):
    """It was written, and lost without a word when a later row brought a column."""
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": n} for n in range(4)])
    spec = a_spec(
        tmp_path,
        capability={
            "target": "capabilities:too_long_for_csv",
            "mode": "row",
            "deterministic": True,
        },
        sink={"uri": str(tmp_path / "out"), "format": "csv"},
        errors={"max_row_errors": 1},
        execution={"engine": "local", "batch_size": batch_size},
    )
    report = BatchRunner(spec).run()
    (letters,) = (tmp_path / "out/_checkpoint/errors").iterdir()
    (part,) = parts(tmp_path / "out")

    assert (report.rows_out, report.rows_failed) == (3, 1)
    assert part.read_text() == '"id","text","late"\n1,"y",\n2,"y",\n3,"y","L"\n'
    assert "about 17,825,8" in letters.read_text()
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_a_bad_record_and_a_failed_row_are_tried_again_from_where_they_stand(tmp_path):
    """`retry --rows` reads single records, also those that quoted lines stand before."""
    mended = tmp_path / "mended"
    line = '{0},"two\nlines",1,1,,,true'
    a_file(tmp_path / "in/a.csv", 0, 30, lines=[line])
    text = (tmp_path / "in/a.csv").read_text().replace("id,text", "id,bad", 1)
    text = text.replace('11,"two\nlines"', '11,"x"').replace('12,"two\nlines"', '12,"two\nlines"x')
    (tmp_path / "in/a.csv").write_text(text.replace("two\nlines", ""))
    types = {name: kind for name, kind in TYPES.items() if name != "text"}
    spec = a_csv_spec(
        tmp_path,
        source={
            "uri": str(tmp_path / "in"),
            "format": "csv",
            "schema": types,
            "shard": {"rows": 7},
        },
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(mended)}},
        errors={"max_row_errors": 5},
    )
    first = BatchRunner(spec).run()
    mended.touch()
    again = BatchRunner(spec).retry(rows=True)

    assert (first.rows_in, first.rows_out, first.rows_failed) == (30, 28, 2)
    assert (again.rows_in, again.rows_out, again.rows_failed) == (30, 29, 1)
    assert sorted(row["id"] for row in csv_rows(tmp_path / "out")) == sorted(
        str(n) for n in range(30) if n != 12
    )
    assert kinds_of(verify(spec, checks=Checks(keys=("id",)))) == []


def csv_rows(folder):
    """The rows of the parts by the standard library."""
    return [
        row
        for part in parts(folder)
        for row in csv.DictReader(io.StringIO(part.read_bytes().decode(), newline=""), strict=True)
    ]


def test_a_touched_file_is_the_same_and_a_changed_one_is_made_again(tmp_path):
    """A changed header too, on which each row depends, though no byte of its slice changed."""
    for number in range(2):
        a_file(tmp_path / f"in/{number}.csv", number * 20, 20)
    spec = a_csv_spec(tmp_path)
    BatchRunner(spec).run()
    for path in (tmp_path / "in").iterdir():
        os.utime(path, ns=(1, 1))
    touched = BatchRunner(spec).run()
    path = tmp_path / "in/1.csv"
    path.write_text(path.read_text().replace("share", "shard", 1))
    types = {name: kind for name, kind in TYPES.items() if name != "share"}
    source = spec.source.model_copy(update={"schema_": types})
    changed = BatchRunner(a_csv_spec(tmp_path, source=source)).run(accept_changes=True)

    assert (touched.ok, touched.shards_new) == (True, 0)
    assert changed.ok
    assert changed.rows_out == 40


def test_verify_sees_values_that_are_wrong_in_a_part(tmp_path):
    """A lost row, another value, a byte that flipped."""
    a_file(tmp_path / "in/a.csv", 0, 30)
    spec = a_csv_spec(tmp_path)
    BatchRunner(spec).run()
    part = parts(tmp_path / "out")[3]
    whole = part.read_bytes()
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []

    part.write_bytes(whole[:-1] + b" ")
    assert {kind for kind, _ in kinds_of(verify(spec))} == {"checksum"}
    last = whole.rindex(b"\n", 0, -1) + 1
    recorded_as_it_is(tmp_path / "out", whole[:last])
    assert {kind for kind, _ in kinds_of(verify(spec))} == {"rows_out"}
    recorded_as_it_is(tmp_path / "out", whole.replace(b"\n22,", b"\n99,"))
    found = {kind for kind, _ in kinds_of(verify(spec, checks=EVERYTHING))}
    assert found == {"key_missing", "key_unknown", "replay"}


def recorded_as_it_is(out, data):
    """The part of shard 3 with other bytes, written and recorded that way, of 7 rows."""
    damage.rewritten_by(out, 3, lambda path: path.write_bytes(data) and 7)


@pytest.mark.parametrize(("suffix", "opened"), [("bz2", bz2.open), ("xz", lzma.open)])
@pytest.mark.parametrize("name", ["csv", "jsonl", "text"])
def test_files_that_other_programs_compressed_are_read(tmp_path, suffix, opened, name):
    """By their suffix, in each format of records, and verified by other code."""
    (tmp_path / "in").mkdir()
    if name == "csv":
        a_file(tmp_path / f"in/a.csv.{suffix}", 0, 30, opened=opened)
    else:
        end, line = {
            "jsonl": ("jsonl", '{{"id": {0}, "text": "row"}}\n'),
            "text": ("txt", "{0}\n"),
        }[name]
        with opened(tmp_path / f"in/a.{end}.{suffix}", "wb") as file:
            file.write("".join(line.format(n) for n in range(30)).encode())
    source = {"uri": str(tmp_path / "in"), "format": name}
    checks = EVERYTHING if name != "text" else Checks(keys=("text",), replay=1)
    spec = a_csv_spec(tmp_path, source=source)
    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_out) == (True, 30)
    assert kinds_of(verify(spec, checks=checks)) == []


@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas", "pyarrow"])
def test_lines_of_text_go_through_each_batch_format(tmp_path, batch_format):
    """Into text, and into what keeps their column; a folder's column has to be dropped for text."""
    lines = ["", "a", " b ", "ä€𝄞", "\x00", "x\ry", "\u2028", '"q"', ""] * 5
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes("\n".join(lines).encode() + b"\n\xff\nlast\r\n")
    execution = {"engine": "local", "batch_format": batch_format, "batch_size": 4}
    for name in ("text", "parquet", "csv"):
        spec = a_csv_spec(
            tmp_path,
            source={"uri": str(tmp_path / "in"), "shard": {"rows": 7}},
            execution=execution,
            sink={"uri": str(tmp_path / name), "format": name},
            errors={"max_row_errors": 1},
        )
        report = BatchRunner(spec).run()
        assert (report.ok, report.rows_in, report.rows_failed) == (True, len(lines) + 2, 1)
        assert kinds_of(verify(spec, checks=Checks(keys=("text",), replay=1))) == []
    table = pa.concat_tables(pq.read_table(part) for part in parts(tmp_path / "parquet"))
    text = b"".join(part.read_bytes() for part in parts(tmp_path / "text"))

    assert table["text"].to_pylist() == [*lines, "last"]
    assert text.decode().split("\n") == [*lines, "last", ""]
    assert [row["text"] for row in csv_rows(tmp_path / "csv")] == [*lines, "last"]


@pytest.mark.parametrize("name", ["csv", pytest.param("text", marks=pytest.mark.long)])
def test_a_killed_run_ends_with_the_same_output(tmp_path, name):
    """On the command line: validated, killed half-way, resumed and verified."""
    (tmp_path / "in").mkdir()
    if name == "csv":
        a_file(tmp_path / "in/a.csv", 0, 40)
    else:
        (tmp_path / "in/a.txt").write_text("".join(f"{n}\n" for n in range(40)))
    spec = {
        "capability": {"target": "capabilities:slow", "version": "1"},
        "source": {"uri": "in", "format": name, "shard": {"rows": 2}},
        "sink": "out",
        "execution": {"engine": "local", "batch_size": 1},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert batchrunner("validate", "spec.yaml", cwd=tmp_path).returncode == 0
    before = killed_with_parts(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    key = {"csv": "id", "text": "text"}[name]
    checked = batchrunner("verify", "spec.yaml", "--key", key, cwd=tmp_path)

    assert 3 <= before < 20
    assert (resumed.returncode, checked.returncode) == (0, 0), resumed.stderr + checked.stdout
    if name == "text":
        found = b"".join(part.read_bytes() for part in parts(tmp_path / "out"))
        assert found == (tmp_path / "in/a.txt").read_bytes()
    else:
        assert [row["id"] for row in csv_rows(tmp_path / "out")] == [str(n) for n in range(40)]


def test_a_folder_of_files_adds_its_column(tmp_path):
    """`day=1/` as a text, beside typed columns; a contradiction costs its row."""
    for day in (1, 2):
        a_file(tmp_path / f"in/day2={day}/a.csv", day * 10, 10)
    spec = a_csv_spec(tmp_path)
    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_out) == (True, 20)
    assert {row["day2"] for row in csv_rows(tmp_path / "out")} == {"1", "2"}
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


@pytest.mark.parametrize("batch_format", ["rows", "pyarrow"])
def test_small_files_with_other_headers_share_shards(tmp_path, batch_format):
    """Each row by the header of its own file; a bad record is a dead letter of its own."""
    for number in range(12):
        names, lines = "id,t,x", [f'{number * 10 + n},"a\n{n}",{n}.5' for n in range(10)]
        if number % 3 == 1:
            names, lines = "x,id,t", [f'{n}.5,{number * 10 + n},"a\n{n}"' for n in range(10)]
        lines[3] += ",surplus" if number % 4 == 0 else ""
        path = tmp_path / f"in/{number:02}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in [names, *lines]))
    spec = a_csv_spec(
        tmp_path,
        source={
            "uri": str(tmp_path / "in"),
            "format": "csv",
            "schema": {"id": "int64", "x": "double"},
            "shard": {"files": 12},
        },
        execution={"engine": "local", "batch_format": batch_format, "batch_size": 64},
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        errors={"max_row_errors": 3},
    )
    report = BatchRunner(spec).run()
    (letters,) = (tmp_path / "out/_checkpoint/errors").iterdir()
    found = pa.concat_tables(pq.read_table(part) for part in parts(tmp_path / "out")).to_pylist()

    assert (report.shards_new, report.rows_out, report.rows_failed) == (1, 117, 3)
    assert sorted(found, key=lambda row: row["id"]) == [
        {"id": n, "t": f"a\n{n % 10}", "x": n % 10 + 0.5}
        for n in range(120)
        if n not in (3, 43, 83)
    ]
    assert [json.loads(line)["source"][-6:] for line in letters.read_text().splitlines()] == [
        "00.csv",
        "04.csv",
        "08.csv",
    ]
    assert kinds_of(verify(spec, checks=EVERYTHING)) == []


def test_types_of_csv_that_are_lost_are_not_made_up(tmp_path):
    """The parts do not record them: `verify --repair` says that it cannot, and does not guess."""
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": 1}])
    spec = {
        "capability": "capabilities:echo",
        "source": "in",
        "sink": {"uri": "out", "format": "csv"},
        "execution": {"engine": "local"},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    batchrunner("run", "spec.yaml", cwd=tmp_path)
    (tmp_path / "out/_checkpoint/schema.arrow").write_bytes(b"damaged")
    done = batchrunner("verify", "spec.yaml", "--repair", cwd=tmp_path)

    assert done.returncode == 5
    assert "schema.arrow is damaged" in done.stdout
    assert "1 defects cannot be repaired" in done.stdout + done.stderr
