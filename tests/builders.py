"""Small, valid things to test with; say only what your test is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from batchrunner import BatchSpec

Row = dict[str, Any]


def rows(first: int, count: int) -> list[Row]:
    return [{"id": n, "text": f"row {n}"} for n in range(first, first + count)]


def a_source(folder: Path, *, shards: int = 3, rows_per_shard: int = 4) -> Path:
    """JSONL files, one a shard, with ids that count on from file to file."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        write_jsonl(folder / f"in-{shard:03d}.jsonl", rows(shard * rows_per_shard, rows_per_shard))
    return folder


def write_jsonl(path: Path, content: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


def a_spec(folder: Path, **changes: Any) -> BatchSpec:
    """A spec over `folder/in` into `folder/out`, on the local engine."""
    fields: dict[str, Any] = {
        "name": "test",
        "capability": "capabilities:double",
        "source": str(folder / "in"),
        "sink": str(folder / "out"),
        "execution": {"engine": "local"},
    }
    return BatchSpec(**{**fields, **changes})


def rows_out(sink: Path) -> list[Row]:
    """All rows of the parts, in part order."""
    return [row for part in parts(sink) for row in read_part(part)]


def parts(sink: Path) -> list[Path]:
    return sorted(sink.glob("part-*"))


def read_part(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    if path.suffix in (".gz", ".zst"):
        import pyarrow as pa

        codec = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
        text = pa.CompressedInputStream(str(path), codec).read().decode()
    else:
        text = path.read_text()
    return [json.loads(line) for line in text.split("\n") if line]
