"""A batch on the local engine, end to end: formats, capabilities, what comes out."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from builders import a_source, a_spec, parts, read_part, rows, rows_out, write_jsonl

ROWS = rows(0, 12)


def run(spec, **kwargs):
    report = BatchRunner(spec, **kwargs).run()
    assert report.ok
    return report


def write_source(folder, file_format):
    folder.mkdir()
    for number, first in enumerate(range(0, 12, 4)):
        some = ROWS[first : first + 4]
        if file_format == "parquet":
            pq.write_table(pa.Table.from_pylist(some), folder / f"{number}.parquet")
            continue
        text = "".join(json.dumps(row) + "\n" for row in some).encode()
        if file_format == "jsonl.gz":
            text = gzip.compress(text)
        if file_format == "jsonl.zst":
            text = pa.compress(text, codec="zstd", asbytes=True)
        (folder / f"{number}.{file_format}").write_bytes(text)


@pytest.mark.parametrize("source", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("sink", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_any_format_goes_into_any_other(tmp_path, source, sink):
    """A source and a sink know nothing of each other."""
    write_source(tmp_path / "in", source)
    sink_format, _, compression = sink.partition(".")
    sink_spec = {"uri": str(tmp_path / "out"), "format": sink_format}
    if compression:
        sink_spec["compression"] = compression

    report = run(a_spec(tmp_path, capability="capabilities:echo", sink=sink_spec))

    assert rows_out(tmp_path / "out") == ROWS
    assert {path.name.partition(".")[2] for path in parts(tmp_path / "out")} == {sink}
    assert (report.rows_in, report.rows_out, report.shards) == (12, 12, 3)


def test_the_sink_has_the_format_of_the_source_unless_the_spec_says_otherwise(tmp_path):
    """The least surprising default."""
    write_source(tmp_path / "in", "parquet")

    run(a_spec(tmp_path))

    assert all(path.suffix == ".parquet" for path in parts(tmp_path / "out"))


@pytest.mark.parametrize(
    ("target", "batch_format", "expected"),
    [
        ("double", "rows", [{**row, "id": 2 * row["id"]} for row in ROWS]),
        ("in_pieces", "rows", ROWS),
        ("later", "rows", [{**row, "id": 2 * row["id"]} for row in ROWS]),
        ("later_in_pieces", "rows", ROWS),
        (
            "shout_columns",
            "numpy",
            [{**row, "id": 2 * row["id"], "length": len(row["text"])} for row in ROWS],
        ),
        ("shout_frame", "pandas", [{**row, "id": 2 * row["id"]} for row in ROWS[2:]]),
        ("shout_table", "pyarrow", [{**row, "id": 2 * row["id"]} for row in ROWS]),
        ("keep_nothing", "rows", []),
    ],
)
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
@pytest.mark.parametrize("batch_size", [1, 3, 1024])
def test_a_capability_gets_and_gives_batches(
    tmp_path, target, batch_format, expected, sink, batch_size
):
    """Whatever shape of batch it wants, sync or async, whole or in pieces."""
    a_source(tmp_path / "in", shards=3)
    execution = {"engine": "local", "batch_format": batch_format, "batch_size": batch_size}

    run(
        a_spec(
            tmp_path,
            capability=f"capabilities:{target}",
            sink={"uri": str(tmp_path / "out"), "format": sink},
            execution=execution,
        )
    )

    assert rows_out(tmp_path / "out") == expected
    assert len(parts(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("even_or_none", [row for row in ROWS if row["id"] % 2 == 0]),
        ("later_by_row", [row for row in ROWS if row["id"] % 2 == 0]),
        (
            "fan_out_and_drop",
            [{**row, "copy": copy} for row in ROWS for copy in range(row["id"] % 3)],
        ),
    ],
)
def test_in_row_mode_a_row_becomes_none_one_or_many(tmp_path, target, expected):
    """None drops it, a list fans out."""
    a_source(tmp_path / "in", shards=3)
    capability = {"target": f"capabilities:{target}", "mode": "row"}

    report = run(a_spec(tmp_path, capability=capability))

    assert rows_out(tmp_path / "out") == expected
    assert (report.rows_in, report.rows_out) == (12, len(expected))


def test_a_class_is_built_once_and_called_with_its_arguments(tmp_path):
    """A model loads once per worker, not once per shard."""
    a_source(tmp_path / "in", shards=3)
    built = tmp_path / "built"
    capability = {
        "target": "capabilities:Scaled",
        "fn_constructor_kwargs": {"factor": 10, "path": str(built)},
        "fn_kwargs": {"plus": 1},
    }

    run(a_spec(tmp_path, capability=capability))

    assert [row["id"] for row in rows_out(tmp_path / "out")] == [10 * n + 1 for n in range(12)]
    assert len(built.read_text().splitlines()) == 1


def test_the_capability_may_be_the_object_itself(tmp_path):
    """Ten lines of Python are enough."""
    a_source(tmp_path / "in", shards=1)

    run(a_spec(tmp_path, capability=None), capability=lambda batch: batch[:1])

    assert rows_out(tmp_path / "out") == rows(0, 1)


def test_a_file_is_cut_where_lines_end(tmp_path):
    """Many shards of one file: no row lost at a cut, none twice, order kept."""
    write_jsonl(tmp_path / "in/big.jsonl", rows(0, 1000))
    source = {"uri": str(tmp_path / "in"), "shard": {"bytes": 4096}}

    report = run(a_spec(tmp_path, capability="capabilities:echo", source=source))

    assert report.shards > 5
    assert rows_out(tmp_path / "out") == rows(0, 1000)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_shards_of_so_many_rows_are_exact(tmp_path, suffix):
    """`shard.rows` is a promise."""
    (tmp_path / "in").mkdir()
    if suffix == "parquet":
        table = pa.Table.from_pylist(rows(0, 25))
        pq.write_table(table, tmp_path / "in/x.parquet", row_group_size=7)
    else:
        text = "\n\n".join(json.dumps(row) for row in rows(0, 25))
        (tmp_path / "in/x.jsonl").write_text(text)
    source = {"uri": str(tmp_path / "in"), "shard": {"rows": 10}}

    run(a_spec(tmp_path, capability="capabilities:echo", source=source))

    assert [len(read_part(part)) for part in parts(tmp_path / "out")] == [10, 10, 5]
    assert rows_out(tmp_path / "out") == rows(0, 25)


def test_row_groups_become_shards(tmp_path):
    """Two groups of seven rows each a shard, the rest in the last."""
    (tmp_path / "in").mkdir()
    table = pa.Table.from_pylist(rows(0, 30))
    pq.write_table(table, tmp_path / "in/x.parquet", row_group_size=7)
    source = {"uri": str(tmp_path / "in"), "shard": {"row_groups": 2}}

    run(a_spec(tmp_path, capability="capabilities:echo", source=source))

    assert [len(read_part(part)) for part in parts(tmp_path / "out")] == [14, 14, 2]


@pytest.mark.parametrize("source", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("limit", [1, 4, 6, 12, 100])
def test_a_limit_gives_the_first_rows(tmp_path, source, limit):
    """To try a capability on a little of the real data."""
    write_source(tmp_path / "in", source)
    source_spec = {"uri": str(tmp_path / "in"), "limit": limit}

    run(a_spec(tmp_path, capability="capabilities:echo", source=source_spec))

    assert rows_out(tmp_path / "out") == ROWS[:limit]


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_only_the_columns_asked_for_are_read(tmp_path, source):
    """A wide table costs what is used of it."""
    write_source(tmp_path / "in", source)
    source_spec = {"uri": str(tmp_path / "in"), "columns": ["id"]}

    run(a_spec(tmp_path, capability="capabilities:echo", source=source_spec))

    assert rows_out(tmp_path / "out") == [{"id": n} for n in range(12)]


def test_an_empty_file_gives_no_shard_and_an_empty_source_is_a_success(tmp_path):
    """Nothing to do is no error."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/empty.jsonl").touch()

    report = run(a_spec(tmp_path))

    assert (report.shards, parts(tmp_path / "out")) == (0, [])
    assert (tmp_path / "out/_SUCCESS").exists()


def test_the_manifest_lists_every_part(tmp_path):
    """A reader needs no listing, and can check what it reads."""
    a_source(tmp_path / "in", shards=3)
    run(a_spec(tmp_path))

    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())

    assert [part["part"] for part in manifest["parts"]] == [
        path.name for path in parts(tmp_path / "out")
    ]
    assert [part["rows"] for part in manifest["parts"]] == [4, 4, 4]
    assert (manifest["rows_in"], manifest["rows_out"]) == (12, 12)


def test_all_parts_of_a_parquet_sink_have_one_schema(tmp_path):
    """The first part with rows fixes it, also for a shard that has none."""
    a_source(tmp_path / "in", shards=4)
    sink = {"uri": str(tmp_path / "out"), "format": "parquet"}

    run(a_spec(tmp_path, capability="capabilities:one_shard_empty", sink=sink))

    schemas = [pq.read_schema(path) for path in parts(tmp_path / "out")]
    assert len(schemas) == 4
    assert all(schema.equals(schemas[0]) for schema in schemas)


def test_the_first_shards_may_be_empty(tmp_path):
    """A shard without rows waits for one that knows the schema."""
    a_source(tmp_path / "in", shards=3)
    sink = {"uri": str(tmp_path / "out"), "format": "parquet"}

    run(
        a_spec(tmp_path, capability=None, sink=sink),
        capability=lambda batch: [row for row in batch if row["id"] >= 8],
    )

    schemas = [pq.read_schema(path).names for path in parts(tmp_path / "out")]
    assert schemas == [["id", "text"]] * 3
    assert rows_out(tmp_path / "out") == rows(8, 4)


def test_a_declared_schema_is_the_one_of_all_parts(tmp_path):
    """Columns whose first values are all null have a type nevertheless."""
    a_source(tmp_path / "in", shards=3)
    schema = {"id": "int64", "text": "string", "note": "string"}
    sink = {"uri": str(tmp_path / "out"), "format": "parquet", "schema": schema}

    run(a_spec(tmp_path, capability="capabilities:nullable", sink=sink))

    assert [row["note"] for row in rows_out(tmp_path / "out")] == [None] * 4 + ["x"] * 8
