"""Parts of one sink whose rows add to its schema: every value is kept, and all can be read together."""

import gzip
import json
import random
from itertools import pairwise

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import mutants
from batchrunner import BatchRunner
from batchrunner.errors import SpecChangedError
from batchrunner.formats import conform, schemas
from batchrunner.verify import verify
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_source, a_spec, parts, write_jsonl

FILES = [
    [{"id": 1, "meta": {"src": "web", "zip": 1234}}, {"id": 2, "meta": None}],
    [{"id": 3, "meta": {"src": "web", "zip": 1, "lang": "en"}}, {"id": 4, "score": 0.5}],
    [{"id": 5, "messages": [{"role": "user"}, {"role": "bot", "content": "hi"}]}],
    [{"id": 6, "messages": [], "meta": {"tags": ["a", None]}}, {"id": 7}],
    [{"id": 8, "messages": [{"role": "user", "content": None, "calls": [{"n": 1}]}]}],
]


def run(folder, files, **execution):
    for number, rows in enumerate(files):
        write_jsonl(folder / f"in/{number}.jsonl", rows)
    sink = {"uri": str(folder / "out"), "format": "parquet"}
    execution = {"engine": "local", **execution}
    errors = {"max_row_errors": 1.0, "retry": {"max_attempts": 1}}
    spec = a_spec(
        folder, capability="capabilities:echo", sink=sink, execution=execution, errors=errors
    )
    runner = BatchRunner(spec)
    return runner, runner.run()


def known(folder):
    """The whole schema, as the manifest has it, and as pyarrow says that the parts have it."""
    schema = pa.unify_schemas([pq.read_schema(path) for path in parts(folder / "out")])
    manifest = json.loads((folder / "out/_manifest.json").read_text())
    assert sorted((c["name"], c["type"]) for c in manifest["schema"]) == sorted(
        (field.name, str(field.type).replace("<element:", "<item:")) for field in schema
    )
    return schema


def without_nulls(value):
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas", "pyarrow"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_what_later_parts_add_is_kept_at_any_depth(tmp_path, order, batch_format):
    """It was dropped in silence, or not, by which part was committed first."""
    files = random.Random(order).sample(FILES, len(FILES)) if order else FILES

    runner, report = run(tmp_path, files, batch_format=batch_format)

    rows = [row for file in files for row in file]
    assert (report.ok, report.rows_out, report.rows_failed) == (True, len(rows), 0)
    found = [row for path in parts(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert [without_nulls(row) for row in found] == [without_nulls(row) for row in rows]
    assert verify(runner.spec).ok
    known(tmp_path)


def test_all_parts_are_read_together_by_whom_the_documentation_names(tmp_path):
    """With the very calls of docs/reference/values.md; Spark merges fields of one type by name."""
    run(tmp_path, FILES)
    paths = [str(path) for path in parts(tmp_path / "out")]
    rows = [without_nulls(row) for file in FILES for row in file]

    by_arrow = ds.dataset(paths, schema=known(tmp_path)).to_table().to_pylist()
    by_duckdb = duckdb.read_parquet(f"{tmp_path}/out/part-*.parquet", union_by_name=True)
    by_polars = pl.concat([pl.read_parquet(p) for p in paths], how="diagonal_relaxed").to_dicts()

    for found in (by_arrow, by_duckdb.to_arrow_table().to_pylist(), by_polars):
        assert [without_nulls(row) for row in found] == rows
    for one, other in pairwise(pq.read_schema(path) for path in paths):
        merge_as_spark(one, other)


def merge_as_spark(one, other):
    for field in one:
        if field.name in other.names:
            merge_types_as_spark(field.type, other.field(field.name).type)


def merge_types_as_spark(one, other):
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        merge_as_spark(pa.schema(list(one)), pa.schema(list(other)))
    elif pa.types.is_list(one) and pa.types.is_list(other):
        merge_types_as_spark(one.value_type, other.value_type)
    else:
        assert one == other


DRIFT = [
    [{"id": 1, "meta": {"zip": 1234}}],
    [{"id": 2, "meta": {"zip": "01234", "lang": "en"}}, {"id": 3, "meta": {"zip": 5}}],
    [{"id": 4, "meta": {"zip": 5.0}}, {"id": 5, "meta": {"zip": True}}],
    [{"id": 6, "meta": {"lang": 7}}, {"id": 7, "score": 0.5}],
]


@pytest.mark.parametrize("execution", [{}, {"batch_size": 1}, {"batch_format": "pyarrow"}])
def test_a_change_of_type_is_a_row_error_that_names_the_place_and_both_types(tmp_path, execution):
    """It was cast: "01234" became 1234, and True 1."""
    runner, report = run(tmp_path, DRIFT, **execution)

    assert (report.rows_out, report.rows_failed) == (4, 3)
    found = [row for path in parts(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert [without_nulls(row) for row in found] == [
        {"id": 1, "meta": {"zip": 1234}},
        {"id": 3, "meta": {"zip": 5}},
        {"id": 6, "meta": {"lang": 7}},
        {"id": 7, "score": 0.5},
    ]
    dead_letters = list(read_dead_letters(runner._run().checkpoint))
    assert [json.loads(dead_letter["raw"])["id"] for dead_letter in dead_letters] == [2, 4, 5]
    assert [dead_letter["message"].partition(";")[0] for dead_letter in dead_letters] == [
        "column 'meta.zip': string here, but int64 in the schema of the sink",
        "column 'meta.zip': double here, but int64 in the schema of the sink",
        "column 'meta.zip': bool here, but int64 in the schema of the sink",
    ]
    assert verify(runner.spec).ok


def test_objects_that_are_always_empty_have_the_fields_that_others_know(tmp_path):
    """Parquet has no type for them, and cost their shard; now it is tried again with what is known."""
    files = [
        [{"id": 1, "m": {}}, {"id": 2}],
        [{"id": 3, "m": {}}, {"id": 4, "c": [{"args": {}}]}],
        [{"id": 5, "m": {"a": 1}}, {"id": 6, "c": [{"args": {"n": 1}}]}],
        [{"id": 7, "m": {}}, {"id": 8, "c": [{"args": {}}, {}]}],
    ]

    runner, report = run(tmp_path, files)

    found = [row for path in parts(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert [row["id"] for row in found] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (report.rows_failed, found[6]["m"]) == (0, {"a": None})
    assert verify(runner.spec).ok


@pytest.mark.parametrize("execution", [{}, {"batch_size": 1}, {"batch_format": "pandas"}])
def test_objects_of_which_nobody_knows_a_field_cost_their_rows_and_no_shard(tmp_path, execution):
    """One bad row costs one row."""
    runner, report = run(
        tmp_path, [[{"id": 1, "m": {}}, {"id": 2}, {"id": 3, "m": None}]], **execution
    )

    found = [row for path in parts(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert [row["id"] for row in found] == [2, 3]
    assert report.rows_failed == 1
    (dead_letter,) = read_dead_letters(runner._run().checkpoint)
    assert dead_letter["message"].startswith("column 'm': Parquet has no type for struct<>")


def test_declared_types_that_parts_have_not_are_refused_also_when_changes_are_accepted(tmp_path):
    """Or the parts could not be read together, and the manifest would say what is not so."""
    run(tmp_path, [[{"id": 1, "score": 1}]])
    write_jsonl(tmp_path / "in/1.jsonl", [{"id": 2, "score": 0.5}])
    before = sorted((tmp_path / "out").rglob("*"))

    def runner(**types):
        sink = {"uri": str(tmp_path / "out"), "format": "parquet", **types}
        errors = {"max_row_errors": 1.0, "retry": {"max_attempts": 1}}
        return BatchRunner(
            a_spec(tmp_path, capability="capabilities:echo", sink=sink, errors=errors)
        )

    with pytest.raises(SpecChangedError, match="column 'score': double here, but int64"):
        runner(schema={"id": "int64", "score": "double"}).run(accept_changes=True)
    assert sorted((tmp_path / "out").rglob("*")) == before

    more = {"id": "int64", "score": "int64", "note": "string"}
    assert runner(schema=more).run(accept_changes=True).rows_failed == 1
    write_jsonl(tmp_path / "in/2.jsonl", [{"id": 3, "note": 4}])
    assert runner().run(accept_changes=True).rows_failed == 2  # still text, though not declared now


def test_a_file_that_is_cut_short_decides_no_type(tmp_path):
    """Its shard is given up, and the rows of the next one go through."""
    write_jsonl(tmp_path / "in/1.jsonl", [{"id": 1, "v": 0.5}])
    whole = gzip.compress(b"".join(b'{"id": %d, "v": 1}\n' % n for n in range(60_000)))
    (tmp_path / "in/0.jsonl.gz").write_bytes(whole[:-5000])

    _, report = run(tmp_path, [])

    found = [row for path in parts(tmp_path / "out") for row in pq.read_table(path).to_pylist()]
    assert (found, report.rows_failed, set(report.quarantined)) == ([{"id": 1, "v": 0.5}], 0, {0})


def test_a_sink_that_casts_is_noticed(tmp_path, monkeypatch):
    """A test that this mutant survives would prove nothing."""
    for module, name in ((schemas, "grown_type"), (conform, "_shaped")):  # put back after the test
        monkeypatch.setattr(module, name, getattr(module, name))
    mutants.apply("casts_types")

    _, report = run(tmp_path, DRIFT)

    assert report.rows_failed == 0
    with pytest.raises(AssertionError):
        test_a_change_of_type_is_a_row_error_that_names_the_place_and_both_types(tmp_path / "x", {})


@pytest.mark.ray
def test_the_engine_decides_nothing_of_the_types(tmp_path):
    """On Ray whichever worker was fastest fixed them; now that of the first shard does."""
    outputs = {}
    for engine in ("local", "ray"):
        _, report = run(tmp_path / engine, DRIFT, engine=engine)
        out = [pq.read_table(path).to_pylist() for path in parts(tmp_path / engine / "out")]
        outputs[engine] = (report.rows_failed, out)

    assert outputs["ray"] == outputs["local"]


@pytest.mark.ray
def test_the_first_shard_is_begun_before_others_wait_for_it(tmp_path, local_ray):
    """Ray often began it last: every core held a worker that waited 10 s, then took other types."""
    a_source(tmp_path / "in", shards=24)
    begun = tmp_path / "begun"

    def note(rows):
        with begun.open("a") as file:
            file.write(f"{rows[0]['id']}\n")
        return rows

    spec = a_spec(
        tmp_path,
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        execution={"engine": "ray"},
    )
    report = BatchRunner(spec, capability=note).run()

    assert report.ok
    assert begun.read_text().split().index("0") <= 24 / 4  # a group of the other core
