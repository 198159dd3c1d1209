"""Folders of small files with rows of all shapes, bad rows among them; and what a run makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import exact
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec

KINDS = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "null": pa.null(),
    "list": pa.list_(pa.int64()),
    "object": pa.struct([("p", pa.int64()), ("q", pa.int64())]),
}


def small_files(folder: Path, rng, file_format: str) -> None:
    """Write up to a dozen files of up to 30 rows; some as like as two peas, some with other types."""
    wild, at = rng.random(), 0
    for number in range(rng.randrange(2, 12)):
        kinds = {"x": "int", "y": "str"}
        if rng.random() < wild:
            kinds = {name: rng.choice(list(KINDS)) for name in kinds}
        count = rng.choice([1, 2, 3, 5, 10, 30])
        rows = [_row(rng, kinds, id_, wild=wild) for id_ in range(at, at + count)]
        at += count
        path = folder / "in" / f"{number:03}.{file_format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if file_format == "jsonl":
            path.write_text("".join(_lines(rng, rows)))
        else:
            schema = {
                "id": pa.int64(),
                "bad": pa.bool_(),
                **{c: KINDS[k] for c, k in kinds.items()},
            }
            pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), path)


def _row(rng, kinds, id_, *, wild):
    row = {"id": id_}
    for name, kind in kinds.items():
        if rng.random() > 0.05 * wild:
            row[name] = None if rng.random() < 0.1 * wild else _value(rng, kind)
    return {**row, "bad": True} if rng.random() < 0.03 else row


def _value(rng, kind):
    return {
        "int": lambda: rng.randrange(5),
        "float": rng.random,
        "str": lambda: rng.choice("abc"),
        "null": lambda: None,
        "list": lambda: [rng.randrange(3) for _ in range(rng.randrange(3))],
        "object": lambda: {key: rng.randrange(3) for key in rng.sample("pq", rng.randrange(3))},
    }[kind]()


def _lines(rng, rows):
    lines = [json.dumps(row) + "\n" for row in rows]
    if rng.random() < 0.2:
        lines.insert(rng.randrange(len(lines) + 1), '{"broken": \n')
    return lines


def made(folder: Path, name: str, **changes):
    """Run over `folder/in`; return the end, each part's content, and what became of each failed row."""
    spec = a_spec(
        folder, sink={"uri": str(folder / name), "format": changes.pop("sink")}, **changes
    )
    report = BatchRunner(spec).run(progress=None)
    counts = (report.exit_code, report.rows_in, report.rows_out, report.rows_failed)
    parts = {path.name: _content(path) for path in sorted((folder / name).glob("part-*"))}
    return counts, parts, dead_letters(folder / name)


def _content(path):
    if path.suffix != ".parquet":
        return path.read_bytes()
    table = pq.read_table(path)
    return str(table.schema), exact.rows(table)


def dead_letters(sink: Path):
    found = read_dead_letters(Checkpoint(open_storage(str(sink / "_checkpoint"))))
    return sorted(
        (
            Path(one["source"]).name,
            one["at"],
            one["stage"],
            one["error"],
            one["message"],
            one["raw"],
        )
        for one in found
    )
