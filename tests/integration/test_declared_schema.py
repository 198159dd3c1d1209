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
from batchrunner.set_aside import rows_set_aside
from batchrunner.storage import open_storage
from builders import a_spec, parts, rows_out, write_jsonl

EVENTS = {
    "id": "int64",
    "score": "double",
    "price": "decimal128(10, 2)",
    "meta": {"src": "string", "zip": "int64", "tags": ["string"]},
    "turns": [{"role": "string", "content": "string"}],
}


def a_run(folder, rows, schema, **changes):
    """Run an identity over *rows*, in two files, into Parquet of *schema*; verify what came out."""
    for number, some in enumerate((rows[::2], rows[1::2])):
        write_jsonl(folder / "in" / f"in-{number}.jsonl", some)
    sink = {"uri": str(folder / "out"), "format": "parquet", "schema": schema}
    fields = {"capability": None, "sink": sink, "errors": {"max_row_errors": 100}, **changes}
    spec = a_spec(folder, **fields)
    report = BatchRunner(spec, capability=list).run()
    assert report.ok
    assert BatchRunner(spec, capability=list).verify().ok
    return {row["id"]: row for row in rows_out(folder / "out")}


def told(folder):
    """Return why each row was set aside, by the id in it."""
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    return {json.loads(letter.row)["id"]: letter.message for letter in rows_set_aside(checkpoint)}
