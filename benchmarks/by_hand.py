"""One file at a time, written by hand as fast as it goes: the limit, and bare Ray tasks.

Nothing here is safe: no commit, no resume, a crash leaves half a file.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import orjson

from benchmarks.capabilities import burn

PROCESSES = 2

OneFile = Callable[[Path, Path], None]


def jsonl_file(source: Path, target: Path) -> None:
    """Line by line, with orjson."""
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            row = orjson.loads(line)
            row["n"] = len(row["text"])
            out.write(orjson.dumps(row) + b"\n")


def jsonl_file_synced(source: Path, target: Path) -> None:
    """The same, and the file survives a power cut (its name may not)."""
    jsonl_file(source, target)
    fd = os.open(target, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def burning_jsonl_file(source: Path, target: Path) -> None:
    """Line by line, 5 ms of CPU each."""
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            row = orjson.loads(line)
            burn(0.005)
            row["n"] = len(row["text"])
            out.write(orjson.dumps(row) + b"\n")


def parquet_file(source: Path, target: Path) -> None:
    """By columns: no row is ever a Python object."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    pq.write_table(table.append_column("n", pc.utf8_length(table["text"])), target)


def parquet_file_by_rows(source: Path, target: Path) -> None:
    """Through dicts, as a function on rows needs them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(source).to_pylist()
    for row in rows:
        row["n"] = len(row["text"])
    pq.write_table(pa.Table.from_pylist(rows), target)


ONE_FILE: dict[str, OneFile] = {
    function.__name__: function
    for function in (
        jsonl_file,
        jsonl_file_synced,
        burning_jsonl_file,
        parquet_file,
        parquet_file_by_rows,
    )
}


def pairs(source: Path, out: Path) -> list[tuple[Path, Path]]:
    """Return each file of *source* with its place in *out*."""
    return [(file, out / file.name) for file in sorted(source.iterdir())]


def pool(source: Path, out: Path, *, one_file: str) -> None:
    """Let two processes do all files."""
    out.mkdir()
    with multiprocessing.get_context("fork").Pool(PROCESSES) as workers:
        workers.starmap(ONE_FILE[one_file], pairs(source, out))


def bare_ray_tasks(source: Path, out: Path, *, one_file: str, files_per_task: int = 1) -> None:
    """Let Ray tasks do the files, so many each, with nothing around it."""
    import ray

    out.mkdir()
    todo = pairs(source, out)
    task = ray.remote(_some_files)
    starts = range(0, len(todo), files_per_task)
    ray.get([task.remote(one_file, todo[n : n + files_per_task]) for n in starts])


def _some_files(one_file: str, todo: list[tuple[Path, Path]]) -> None:
    for source, target in todo:
        ONE_FILE[one_file](source, target)
