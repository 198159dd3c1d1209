"""Small objects of a bucket share shards: in every format, resumed, changed and verified."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.verify import verify
from buckets import Bucket
from tars import tar_of

OBJECTS, A_PACK = 40, 10
CSV = {"format": "csv", "schema": {"id": "int64", "text": "string"}}


def rows_of(number, word):
    return [
        {"id": 2 * number + half, "text": f'{word} "{number}", {"é" * 300}'} for half in range(2)
    ]


def as_arrow(rows):
    out = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def as_csv(rows):
    quoted = [row["text"].replace('"', '""') for row in rows]
    lines = [f'{row["id"]},"{text}"\n' for row, text in zip(rows, quoted, strict=True)]
    return "".join(["id,text\n", *lines]).encode()


def as_lines(rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def samples(rows):
    return [{"__key__": f"{row['id']:03}", "txt": row["text"].encode()} for row in rows]


def a_file(name, data):
    return [{"path": name, "size": len(data), "bytes": data}]


OF = {
    "jsonl": (as_lines, lambda _, rows: rows),
    "json": (lambda rows: json.dumps(rows).encode(), lambda _, rows: rows),
    "arrow": (as_arrow, lambda _, rows: rows),
    "csv": (as_csv, lambda _, rows: rows),
    "txt": (
        lambda rows: "".join(f"{row['text']}\n" for row in rows).encode(),
        lambda _, rows: [{"text": row["text"]} for row in rows],
    ),
    "tar": (lambda rows: tar_of(samples(rows)), lambda _, rows: samples(rows)),
    "bin": (as_lines, lambda name, rows: a_file(name, as_lines(rows))),
}
"""By the end of an object's name: its bytes, and the rows that they are."""


@pytest.fixture
def bucket(moto, prefix):
    made = Bucket(moto, prefix)
    yield made
    made.close()


def in_order(rows):
    return sorted(rows, key=repr)


def rows_out(bucket):
    parts = [pa.BufferReader(bucket.get(key)) for key in sorted(bucket.listed("out/part-"))]
    found = [row for part in parts for row in pq.read_table(part).to_pylist()]
    return [{name: value for name, value in row.items() if name != "modified"} for row in found]


def killed_before(bucket, part):
    """Leave what a run leaves that is killed before *part* is published."""
    for key in (f"out/{part}.parquet", f"out/_checkpoint/sentinels/{part}.json", "out/_SUCCESS"):
        bucket.delete(key)


@pytest.mark.parametrize("ending", OF)
def test_small_objects_share_shards_and_each_row_is_exact(bucket, ending):
    """One request reads an object, and what dies or changes costs its own shard."""
    written, read = OF[ending]
    names = [f"{number:03}.{ending}" for number in range(OBJECTS)]
    content = {name: rows_of(number, "as it was") for number, name in enumerate(names)}
    for name, rows in content.items():
        bucket.put(f"in/{name}", written(rows))
    folder = f"{bucket.uri}/in"
    options = {"storage_options": bucket.storage_options}
    source = {
        "uri": folder,
        "shard": {"bytes": A_PACK * len(written(content[names[0]]))},
    }
    kind = {"csv": CSV, "bin": {"format": "files"}}.get(ending, {})
    spec = BatchSpec(
        capability="capabilities:echo",
        source={**source, **kind, **options},
        sink={"uri": f"{bucket.uri}/out", "format": "parquet", **options},
        execution={"engine": "local"},
    )

    first = BatchRunner(spec).run()
    killed_before(bucket, "part-00001")
    again = BatchRunner(spec).run()
    expected = [row for name, rows in content.items() for row in read(f"{folder}/{name}", rows)]

    assert 2 <= first.shards_new <= OBJECTS / 4
    assert (again.ok, again.shards_new) == (True, 1)
    assert rows_out(bucket) == expected

    content[names[7]] = rows_of(7, "changed")
    bucket.put(f"in/{names[7]}", written(content[names[7]]))
    changed = BatchRunner(spec).run()
    expected = [row for name, rows in content.items() for row in read(f"{folder}/{name}", rows)]

    assert changed.ok
    assert changed.shards_new <= 2
    assert in_order(rows_out(bucket)) == in_order(expected)
    assert verify(spec).ok
