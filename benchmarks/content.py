"""What an output holds, so that no contestant wins by doing less."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

Row = dict[str, Any]

_SUFFIXES = frozenset({".json", ".jsonl", ".parquet"})
_UNIFY = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY


@dataclass(frozen=True, slots=True)
class Content:
    """A multiset of rows.

    Attributes:
        rows: How many.
        checksum: Sum of the hashes of all rows, whatever their order and that of their keys.
    """

    rows: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows, checksum {self.checksum:016x}"


def content_of(folder: Path) -> Content:
    """Return what the data files of *folder* hold."""
    return _content(folder, mapped=False)


def expected_of(source: Path) -> Content:
    """Return what the output has to hold: the rows of *source*, each with `n = len(text)`."""
    return _content(source, mapped=True)


def data_files(folder: Path) -> list[Path]:
    """Return the files of *folder* that hold rows."""
    return sorted(f for f in folder.iterdir() if f.suffix in _SUFFIXES and f.name[0] not in "._")


def _content(folder: Path, *, mapped: bool) -> Content:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        each = pool.map(partial(_of_file, mapped=mapped), data_files(folder))
    return Content(sum(c.rows for c in each), sum(c.checksum for c in each) % 2**64)


def _of_file(file: Path, *, mapped: bool) -> Content:
    read: Callable[[Path], Iterator[Row]] = _parquet if file.suffix == ".parquet" else _jsonl
    count = total = 0
    for row in _mapped(read(file)) if mapped else read(file):
        count += 1
        total += _hash(row)
    return Content(count, total % 2**64)


def _hash(row: Row) -> int:
    text = orjson.dumps(row, option=_UNIFY)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _mapped(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        yield {**row, "n": len(row["text"])}


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        yield from map(orjson.loads, lines)


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches():
        columns = [column.to_pylist() for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, values, strict=True))


@dataclass(frozen=True, slots=True)
class Ids:
    """How often ids stand in an output that may hold too many or too few rows.

    Attributes:
        rows: In all.
        distinct: How many different ids.
        unreadable: Files that were cut short.
    """

    rows: int
    distinct: int
    unreadable: int


def ids_in(folder: Path) -> Ids:
    """Return what ids the Parquet files of *folder* hold."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    found, unreadable = [np.array([], dtype=np.int64)], 0
    for file in data_files(folder):
        try:
            found.append(pq.read_table(file, columns=["id"])["id"].to_numpy())
        except (pa.ArrowException, OSError):
            unreadable += 1
    ids = np.concatenate(found)
    return Ids(len(ids), len(np.unique(ids)), unreadable)
