"""What an output holds, row by row, beside what it has to hold. DuckDB compares."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.comparison.jobs.work import STEP
from benchmarks.inputs import Row

_COLUMNS = ("id", "text", "n")

_COMPARED = """
WITH output AS (
  SELECT f.id, f.n, f.text IS NOT DISTINCT FROM e.text AND f.n % $step = length(e.text) AS fits,
         f.n IS NULL AS empty, e.id IS NULL AS foreign_row
  FROM found f LEFT JOIN expected e USING (id)
), counted AS (SELECT id, count(*) AS copies FROM output GROUP BY id)
SELECT
  (SELECT count(*) FROM output),
  (SELECT count(*) FROM expected ANTI JOIN found USING (id)),
  (SELECT coalesce(sum(copies - 1), 0)::BIGINT FROM counted),
  (SELECT count(*) FROM output WHERE empty),
  (SELECT count(*) FROM output WHERE NOT empty AND (foreign_row OR NOT fits)),
  (SELECT count(*) FROM output WHERE n < $step),
  (SELECT count(*) FROM output WHERE n >= $step)
"""


@dataclass(frozen=True, slots=True)
class Found:
    """An output, compared.

    Attributes:
        rows: In all.
        lost: Rows of the source that are not there.
        doubled: Copies of a row beyond its first.
        without_result: Rows that are there, with null for the result.
        wrong: Rows that are not what either version of the code returns for a row of the source.
        old: Rows with the result of the code as it was.
        new: Rows with the result of the code as it became.
        unreadable: Lines or files that no reader can read.
    """

    rows: int
    lost: int
    doubled: int
    without_result: int
    wrong: int
    old: int
    new: int
    unreadable: int


def found_in(folder: Path, *, expected: Iterable[Row], is_table: bool) -> Found:
    """Compare what *folder*, or the Delta table in it, holds with the rows that are *expected*."""
    import duckdb
    import pyarrow as pa

    unreadable: list[str] = []
    has = list(_rows_of(_delta_files(folder) if is_table else _files(folder), unreadable))
    found = pa.Table.from_pylist(
        [{name: row.get(name) for name in _COLUMNS} for row in has],
        pa.schema({"id": pa.int64(), "text": pa.string(), "n": pa.int64()}),
    )
    wanted = [{"id": row["id"], "text": row["text"]} for row in expected]
    with duckdb.connect() as connection:
        connection.register("found", found)
        connection.register("expected", pa.Table.from_pylist(wanted))
        counts = connection.execute(_COMPARED, {"step": STEP}).fetchone()
    if counts is None:
        raise RuntimeError("DuckDB returned no row for the counts")
    return Found(*map(int, counts), unreadable=len(unreadable))


def _rows_of(files: Iterable[Path], unreadable: list[str]) -> Iterator[dict[str, Any]]:
    for path in files:
        read = _parquet if path.suffix == ".parquet" else _lines
        for row in read(path, unreadable):
            yield {**row, "id": int(row["id"])}


def _files(folder: Path) -> Iterable[Path]:
    found = folder.rglob("*") if folder.is_dir() else ()
    return sorted(
        path
        for path in found
        if path.suffix in {".json", ".jsonl", ".parquet"}
        and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    )


def _delta_files(folder: Path) -> list[Path]:
    """Return the files that the table's log names: no reader sees another."""
    files: dict[str, Path] = {}
    for commit in sorted(folder.glob("_delta_log/*.json")):
        for line in commit.read_bytes().splitlines():
            action = orjson.loads(line)
            if added := action.get("add"):
                files[added["path"]] = folder / added["path"]
            if removed := action.get("remove"):
                files.pop(removed["path"], None)
    return list(files.values())


def _lines(path: Path, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            unreadable.append(f"{path.name}: {line[:40]!r}")


def _parquet(path: Path, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with contextlib.ExitStack() as opened:
        try:
            table = opened.enter_context(pq.ParquetFile(path)).read()
        except (pa.ArrowException, OSError):
            unreadable.append(path.name)
        else:
            yield from table.to_pylist()
