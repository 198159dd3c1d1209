"""Timestamps of 96 bits, as Spark, Hive and Impala write them: a day and its nanoseconds.

No Arrow type holds all of them. They are read as microseconds, as Spark means them: nanoseconds end
in 2262, and "no end" is written as the year 9999. What an instant has beyond microseconds would be
cut off, and what is too far away for them would wrap round, and Arrow reports neither. So
they are read in nanoseconds and in seconds, too. Both wrap rather than round, so all three agree only
when nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.formats.unsound import copy_of, guilty

UNIT = "us"

_REASON = (
    "its INT96 timestamp is none of whole microseconds, or too far away for them; write it as INT64"
)


def int96_columns(source: pq.ParquetFile) -> list[str]:
    """Return the columns that may hold INT96 timestamps, at any depth."""
    if all(leaf.physical_type != "INT96" for leaf in _leaves_of(source)):
        return []
    return [field.name for field in source.schema_arrow if "timestamp[us]" in str(field.type)]


def _leaves_of(source: pq.ParquetFile) -> Iterator[pq.ColumnSchema]:
    return (source.schema.column(i) for i in range(len(source.schema)))


class InStep:
    """Regroups batches into tables of as many rows as the caller wants next."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._held: pa.Table | None = None

    def next(self, rows: int) -> pa.Table:
        """Return the next *rows* rows, which must be there."""
        while self._held is None or self._held.num_rows < rows:
            fresh = pa.Table.from_batches([next(self._batches)])
            self._held = pa.concat_tables([self._held, fresh]) if self._held else fresh
        taken, self._held = self._held.slice(0, rows), self._held.slice(rows)
        return taken


def inexact_rows(in_us: pa.Table, in_ns: pa.Table, in_s: pa.Table) -> dict[int, str]:
    """Return, by row number, why microseconds cannot hold an instant of the row.

    The tables have the same rows in the three units; the first may have other columns, too.
    """
    reasons: dict[int, str] = {}
    for name in in_ns.column_names:
        columns = [table.column(name) for table in (in_us, in_ns, in_s)]
        if not _is_exact(*(column.combine_chunks() for column in columns)):
            reasons |= _inexact(name, columns)
    return reasons


def _inexact(name: str, columns: Sequence[pa.ChunkedArray]) -> dict[int, str]:
    def reason(start: int, stop: int) -> str | None:
        copies = (copy_of([column.slice(start, stop - start)]) for column in columns)
        return None if _is_exact(*copies) else f"column {name!r}: {_REASON}"

    return dict(guilty(0, len(columns[0]), reason))


def _is_exact(in_us: pa.Array, in_ns: pa.Array, in_s: pa.Array) -> bool:
    return all(
        us.type == ns.type or _agree(*map(_numbers, (us, ns, s)))  # equal: it is no INT96
        for us, ns, s in zip(*map(_instants, (in_us, in_ns, in_s)), strict=True)
    )


def _agree(us: Any, ns: Any, s: Any) -> bool:
    return bool((us * 1000 == ns).all() and (us // 1_000_000 == s).all())


def _numbers(instants: pa.Array) -> Any:
    return instants.cast(pa.int64()).fill_null(0).to_numpy()


def _instants(array: pa.Array) -> Iterator[pa.Array]:
    """Yield the arrays of timestamps in *array*, at any depth."""
    if pa.types.is_timestamp(array.type):
        yield array
    elif pa.types.is_map(array.type):
        yield from _instants(array.keys)
        yield from _instants(array.items)
    elif pa.types.is_nested(array.type):
        flat = array.flatten()
        for inner in flat if pa.types.is_struct(array.type) else [flat]:
            yield from _instants(inner)
