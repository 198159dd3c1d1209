"""JSON lines of any shape: columns give what rows give, whatever the size of the batches.

A table has one type a column and one meaning for null, and JSON has neither; so this is where a batch
of columns would alter its rows, each depending on its neighbours.
"""

from __future__ import annotations

import json
from itertools import permutations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from builders import a_spec, parts

FORMATS = ("rows", "numpy", "pandas", "pyarrow")
FILES = {
    "drift": ['{"id":1,"x":1}', '{"id":2}', '{"id":3,"x":2.5}', '{"id":4,"y":"q"}'],
    "numbers": [
        '{"x":1}',
        '{"x":1.0}',
        '{"x":-0.0}',
        '{"x":null}',
        '{"x":9223372036854775807}',
        '{"x":9223372036854775808}',
        '{"x":18446744073709551616}',
        '{"x":1e+300}',
        '{"x":9007199254740993}',
        '{"x":true}',
        '{"x":"1"}',
    ],
    "lists": [
        '{"x":[1,2]}',
        '{"x":[1,2.5]}',
        '{"x":[]}',
        '{"x":[null]}',
        '{"x":[1,"a"]}',
        '{"x":null}',
        "{ }",
        '{"x":[[1],[2.5]]}',
        '{"x":[{"a":1},{"b":2}]}',
        '{"x":[{"a":null},{}]}',
    ],
    "empty": ["{ }", '{"a":{"b":1}}', '{"a":[]}', '{"a":{}}', '{"":1}', '{"a":{"b":null}}', "{}"],
    "messages": [
        '{"m":[{"role":"u","content":"x"}]}',
        '{"m":[{"role":"s"},{"role":"u","content":"y","name":"z"}]}',
        '{"m":[]}',
        '{"m":[{"role":"t","content":null}]}',
    ],
    "choices": ['{"m":[{"k":"x"}]}', '{"m":[{"k":"y"}]}', '{"m":[{"k":1}]}', '{"m":[{"j":2}]}'],
    "deep": [
        '{"a":{"b":{"c":1}}}',
        '{"a":{"b":{"c":"1"}}}',
        '{"a":{"b":[1]}}',
        '{"a":{"b":{"c":null}}}',
        '{"a":{"b":{"d":true}}}',
        '{"a":{"e":[{"c":[{"d":1}]},{"c":[{"d":null}]}]}}',
    ],
    "text": ['{"t":"\\ud800"}', '{"t":"ä𝄞"}', '{"t":"\\u0000"}', '{"\\ud800":1}', '{"ä":"a\\"b"}'],
}
NO_TABLE = {
    '{"x":9223372036854775808}',
    '{"x":18446744073709551616}',
    '{"x":[1,2.5]}',
    '{"x":[1,"a"]}',
    '{"x":[[1],[2.5]]}',
    '{"x":[{"a":null},{}]}',
    '{"t":"\\ud800"}',
    '{"\\ud800":1}',
}
"""Lines that no table holds as they are. `{ }` is one that no dict of columns holds, by itself."""
ANOTHER_TYPE = {
    *('{"id":3,"x":2.5}', '{"x":1.0}', '{"x":-0.0}', '{"x":1e+300}', '{"x":true}', '{"x":"1"}'),
    *(
        '{"m":[{"k":1}]}',
        '{"x":[{"a":1},{"b":2}]}',
        '{"a":[]}',
        '{"a":{"b":{"c":"1"}}}',
        '{"a":{"b":[1]}}',
    ),
}
"""Lines with another type in a column than the lines before."""

D = pa.struct([("d", pa.int64())])
SCHEMAS = {
    "drift": pa.schema([("id", "i8"), ("x", "i8"), ("y", "str")]),
    "numbers": pa.schema([("x", "i8")]),
    "lists": pa.schema([("x", pa.list_(pa.int64()))]),
    "empty": pa.schema([("a", pa.struct([("b", pa.int64())])), ("", pa.int64())]),
    "messages": pa.schema(
        [("m", pa.list_(pa.struct([(name, "str") for name in ("role", "content", "name")])))]
    ),
    "choices": pa.schema([("m", pa.list_(pa.struct([("k", "str"), ("j", "i8")])))]),
    "deep": pa.schema(
        [
            pa.field(
                "a",
                pa.struct(
                    [
                        ("b", pa.struct([("c", pa.int64()), ("d", pa.bool_())])),
                        ("e", pa.list_(pa.struct([("c", pa.list_(D))]))),
                    ]
                ),
            )
        ]
    ),
    "text": pa.schema([("t", "str"), ("ä", "str")]),
}


def run(folder, files, sink, *, capability=None, timeout=None, **execution):
    """Run over *files*; return the parts, and the lines that are dead letters."""
    errors = {"batch_timeout": timeout} if timeout else {}
    (folder / "in").mkdir(parents=True)
    for name, lines in files.items():
        (folder / f"in/{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    spec = a_spec(
        folder,
        capability={"target": "in:memory", "version": "1"},
        sink={"uri": str(folder / "out"), "format": sink},
        execution={"engine": "local", **execution},
        errors={"max_row_errors": 1.0, "retry": {"max_attempts": 1}, **errors},
    )
    report = BatchRunner(spec, capability=capability or identity).run()
    assert report.ok, report.failures
    written = sorted((folder / "out/_checkpoint/errors").glob("*"))
    dead_letters = [json.loads(line) for path in written for line in path.read_text().splitlines()]
    return parts(folder / "out"), {
        dead_letter["raw"]: dead_letter["message"] for dead_letter in dead_letters
    }


def identity(batch):
    return batch


@pytest.mark.parametrize("batch_format", ["numpy", "pyarrow"])
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
def test_a_process_of_its_own_gives_the_same(tmp_path, batch_format, sink):
    """Rows go there and back through a pipe, where a table of no columns has no rows."""
    files = {"lists": FILES["lists"]}
    (here,), dead = run(tmp_path / "here", files, sink, batch_format=batch_format)
    (there,), dead_there = run(
        tmp_path / "there", files, sink, batch_format=batch_format, timeout="5m"
    )

    assert dead_there == dead
    assert there.read_bytes() == here.read_bytes()


def refused(batch_format):
    return {"rows": set(), "numpy": NO_TABLE | {"{ }"}}.get(batch_format, NO_TABLE)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("batch_format", FORMATS)
def test_json_to_json_is_what_was_there(tmp_path, batch_format, batch_size):
    """No number becomes a float, no key appears or goes, no neighbour decides: or the row is refused."""
    made, dead = run(tmp_path, FILES, "jsonl", batch_format=batch_format, batch_size=batch_size)

    for (name, lines), part in zip(sorted(FILES.items()), made, strict=True):
        kept = [json.loads(line) for line in lines if line not in refused(batch_format)]
        assert repr([json.loads(line) for line in part.read_text().splitlines()]) == repr(kept), (
            name
        )
    assert set(dead) == {line for lines in FILES.values() for line in lines} & refused(batch_format)
    assert all("column" in message or "key" in message for message in dead.values())


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("name", FILES)
def test_json_to_parquet_is_the_same_by_columns_as_by_rows(
    tmp_path, name, batch_format, batch_size
):
    """A column that is null in a row has no type there, whatever its neighbours have."""
    lines = FILES[name]
    execution = {"batch_format": batch_format, "batch_size": batch_size}
    (part,), dead = run(tmp_path, {name: lines}, "parquet", **execution)

    table = pq.read_table(part)
    gone = NO_TABLE | ANOTHER_TYPE | refused(batch_format)
    kept = [json.loads(line) for line in lines if line not in gone]
    assert repr(filled(table.to_pylist())) == repr(filled(kept))
    assert set(dead) == gone.intersection(lines)
    assert table.schema == SCHEMAS[name]


def filled(value):
    """Leave out what is null: a table has a null for each key that is absent."""
    if isinstance(value, dict):
        return {key: filled(one) for key, one in sorted(value.items()) if filled(one) is not None}
    return [filled(one) for one in value] if isinstance(value, list) else value


PAGES = [
    {"id": 1, "meta": {"src": "web", "zip": 1234}},
    {"id": 2, "meta": {"src": "web", "lang": "en", "tags": [{"a": 1}]}},
    {"id": 3, "meta": {"src": None, "score": 0.5, "tags": [{"b": "x"}, {"a": 2}]}},
    {"id": 4, "meta": {"zip": None, "tags": []}, "more": {"deep": {"x": [1]}}},
]


@pytest.mark.parametrize("batch_format", FORMATS)
def test_no_field_is_lost_whichever_file_comes_first(tmp_path, batch_format):
    """Objects that gain keys from file to file are ordinary, and each order of them is one schema."""
    for number, order in enumerate(permutations(PAGES)):
        files = {f"{at}": [json.dumps(page)] for at, page in enumerate(order)}
        made, dead = run(tmp_path / f"{number}", files, "parquet", batch_format=batch_format)

        together = [row for part in made for row in pq.read_table(part).to_pylist()]
        assert not dead
        assert sorted(map(repr, filled(together))) == sorted(map(repr, filled(list(order))))


@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
def test_a_row_that_fails_changes_no_other(tmp_path, batch_format, sink):
    """Its batch is halved, so its neighbours are called again, in other company."""
    lines = [f'{{"id":{n},"x":{n},"o":{{"k{n % 3}":{n}.5}}}}' for n in range(40)]
    lines[7] = '{"id":7,"y":"only here"}'
    execution = {"batch_format": batch_format, "batch_size": 16}
    (whole,), _ = run(tmp_path / "a", {"f": lines}, sink, **execution)
    (part,), dead = run(tmp_path / "b", {"f": lines}, sink, capability=picky, **execution)

    assert list(dead) == [lines[23]]
    if sink == "jsonl":
        others = [line for line in whole.read_text().splitlines() if '"id":23,' not in line]
        assert part.read_text().splitlines() == others
    else:
        table = pq.read_table(whole)
        assert pq.read_table(part).equals(table.filter(pc.field("id") != 23))
        assert pq.read_schema(part) == table.schema


def picky(batch):
    ids = [row["id"] for row in batch] if isinstance(batch, list) else list(batch["id"])
    if 23 in [getattr(each, "as_py", lambda each=each: each)() for each in ids]:
        raise ValueError("not 23")
    return batch
