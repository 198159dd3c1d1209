"""A declared schema, end to end: values that fit it exactly are kept, the others cost their rows."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, Field

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.verify import verify
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, parts, write_jsonl

EVENTS = {
    "id": "int64",
    "score": "double",
    "price": "decimal128(10, 2)",
    "meta": {"src": "string", "zip": "int64", "tags": ["string"]},
    "turns": [{"role": "string", "content": "string"}],
}
META = {"src": "web", "zip": 1234, "tags": ["a"]}
TURN = {"role": "user", "content": "hi"}
FITS = {
    0: {"score": 1, "price": 5, "meta": META, "turns": [TURN]},
    1: {"score": 0.5, "meta": META, "turns": []},
    2: {"score": None, "price": None, "meta": None, "turns": None},
    3: {},
    4: {"score": 2, "meta": {"zip": 7}, "turns": [{"role": "user"}, TURN, None]},
    5: {"score": 1 << 53, "meta": {"tags": None}},
}
REFUSED = {
    10: ({"price": "5.00"}, "column 'price': string here, but decimal128(10, 2) in"),
    11: ({"score": "1"}, "column 'score': string here, but double in"),
    12: ({"score": (1 << 53) + 1}, "column 'score'"),
    13: ({"price": 0.5}, "column 'price'"),
    14: ({"price": 10**9}, "column 'price'"),
    15: ({"meta": {**META, "lang": "en"}}, "it has no field 'lang'"),
    16: ({"meta": {**META, "zip": "01234"}}, "column 'meta.zip': string here, but int64 in"),
    17: ({"meta": [1]}, "column 'meta'"),
    18: ({"turns": [{**TURN, "name": "x"}]}, "it has no field 'name'"),
    19: ({"turns": ["hi"]}, "column 'turns[]': string here, but struct<"),
    20: ({"more": 1}, "column 'more' is not in the schema of the sink"),
    21: ({"meta": {**META, "zip": 1.5}}, "column 'meta.zip': double here, but int64 in"),
}


def identity(batch):
    return batch


def filled(row):
    """Return *row* as it is in the schema: what it lacks is null."""

    def inner(value, keys):
        return None if value is None else {**dict.fromkeys(keys), **value}

    turns = row.get("turns")
    return {
        **dict.fromkeys(EVENTS),
        **row,
        "meta": inner(row.get("meta"), META),
        "turns": None if turns is None else [inner(turn, TURN) for turn in turns],
    }


def run_and_verify(spec, capability):
    """Run it, and have what came out verified: by schema, count and checksum."""
    report = BatchRunner(spec, capability=capability).run()
    assert report.ok
    assert verify(spec).findings == ()


def into(folder, schema, **changes):
    sink = {"uri": str(folder / "out"), "format": "parquet", "schema": schema}
    return a_spec(folder, capability=None, sink=sink, errors={"max_row_errors": 100}, **changes)


def schemas_out(folder):
    return [pq.read_schema(part) for part in parts(folder / "out")]


def rows_by_id(folder):
    tables = [pq.read_table(part) for part in parts(folder / "out")]
    return {row["id"]: row for table in tables for row in table.to_pylist(maps_as_pydicts="strict")}


def refusals(folder):
    """Return why each row was set aside, by its id."""
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    dead_letters = list(read_dead_letters(checkpoint))
    return {
        json.loads(dead_letter["raw"])["id"]: dead_letter["message"] for dead_letter in dead_letters
    }


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_json_of_many_shapes_is_one_schema_or_a_dead_letter(tmp_path, batch_size):
    """Integers are floats and decimals where they are exact; a string is no number, ever."""
    refused = {number: row for number, (row, _) in REFUSED.items()}
    rows = [{"id": number, **row} for number, row in {**FITS, **refused}.items()]
    for part in range(3):
        write_jsonl(tmp_path / f"in/in-{part}.jsonl", rows[part::3])
    execution = {"engine": "local", "batch_size": batch_size}

    run_and_verify(into(tmp_path, EVENTS, execution=execution), identity)

    assert rows_by_id(tmp_path) == {n: filled({"id": n, **row}) for n, row in FITS.items()}
    messages = refusals(tmp_path)
    assert messages.keys() == REFUSED.keys()
    assert [n for n, (_, message) in REFUSED.items() if message not in messages[n]] == []
    kind = pa.struct({"src": pa.string(), "zip": pa.int64(), "tags": pa.list_(pa.string())})
    assert [schema.field("meta").type for schema in schemas_out(tmp_path)] == [kind] * 3


class Turn(BaseModel):
    role: str
    content: str | None


class Row(BaseModel):
    id: int
    key: uuid.UUID
    others: list[uuid.UUID]
    at: dt.datetime
    price: Decimal = Field(max_digits=10, decimal_places=2)
    turns: list[Turn]
    counts: dict[str, int]


def made(row):
    return {
        "id": row["id"],
        "key": uuid.UUID(int=row["id"]),
        "others": [uuid.UUID(int=row["id"])] * row["id"],
        "at": dt.datetime(2026, 1, 1, microsecond=row["id"]),  # noqa: DTZ001 - a naive one
        "price": Decimal(row["id"]) / 4,
        "turns": [{"role": "user", "content": None}] * row["id"],
        "counts": {"a": row["id"]} if row["id"] else {},
    }


def test_values_of_python_lie_in_the_columns_of_a_model(tmp_path):
    """In every part the same, also of a shard that has nothing but empty lists, or no rows at all."""
    for n in range(4):
        write_jsonl(tmp_path / f"in/in-{n}.jsonl", [{"id": n}])

    run_and_verify(into(tmp_path, Row), lambda batch: [made(row) for row in batch if row["id"] < 3])

    assert rows_by_id(tmp_path) == {n: made({"id": n}) for n in range(3)}
    first, *others = schemas_out(tmp_path)
    assert [schema.equals(first) for schema in others] == [True] * 3


def test_a_run_goes_on_however_the_schema_was_given(tmp_path):
    """A notebook and a file ask for the same run."""
    write_jsonl(tmp_path / "in/in-0.jsonl", [{"id": 1, "x": [1]}])
    ways = [
        {"id": "i8", "x": ["float64"]},
        {"id": "int64", "x": "list<item: double>"},
        pa.schema({"id": pa.int64(), "x": pa.list_(pa.float64())}),
    ]
    for way in ways:
        run_and_verify(into(tmp_path, way), identity)
    assert len(parts(tmp_path / "out")) == 1


def test_a_null_where_the_schema_has_none_costs_its_row(tmp_path):
    """Parquet's writer would refuse the part, and so the shard."""
    rows = [{"id": 1, "m": {"s": "a"}}, {"id": 2, "m": {}}, {"id": 3}, {"id": 4, "m": None}]
    write_jsonl(tmp_path / "in/in-0.jsonl", [*rows, {"id": 5, "x": None, "m": {"s": "b"}}])

    run_and_verify(
        into(tmp_path, {"id": "int64 not null", "m": "struct<s: string not null>", "x": "null"}),
        identity,
    )

    assert rows_by_id(tmp_path).keys() == {1, 3, 4, 5}
    assert refusals(tmp_path) == {
        2: "column 'm.s': null here, but string not null in the schema of the sink; return a value, "
        "or leave `not null` out of sink.schema"
    }


def test_a_dictionary_has_room_for_the_words_of_a_part(tmp_path):
    """With indices of 8 bits, Arrow writes a thousand words, and cannot read them."""
    words = [{"id": n, "x": f"word {n}"} for n in range(1000)]
    write_jsonl(tmp_path / "in/in-0.jsonl", words)
    schema = {"id": "int64", "x": "dictionary<values=string, indices=int8>"}
    execution = {"engine": "local", "batch_size": 100}

    run_and_verify(into(tmp_path, schema, execution=execution), identity)

    assert list(rows_by_id(tmp_path).values()) == words
    assert schemas_out(tmp_path)[0].field("x").type == pa.dictionary(pa.int32(), pa.string())
