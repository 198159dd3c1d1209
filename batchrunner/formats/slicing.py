"""How a file is cut into shards: from its size, its footer or, where exact rows count, a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import BinaryIO, Literal

from batchrunner.errors import StorageError
from batchrunner.formats.jsonl import open_compressed
from batchrunner.formats.lines import ByteStream, read_lines, row_ends
from batchrunner.formats.naming import PARQUET, FileKind
from batchrunner.shard import Slicing

Opener = Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class Sharding:
    """How large a shard is to be: *count* of *unit*."""

    unit: Literal["bytes", "rows", "row_groups", "files"]
    count: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A shard that has no id yet; the fields are those of `Shard`."""

    slicing: Slicing
    start: int
    stop: int
    rows: int | None
    weight: int


def slice_file(
    size: int, kind: FileKind, *, sharding: Sharding, limit: int | None, opened: Opener
) -> list[Slice]:
    """Cut a file of *size* bytes, in order and without gaps; an empty one gives none.

    Nothing of the file is read, or the footer of a Parquet file larger than a shard. Lines are
    read only to count rows: all of them when *sharding* is in rows, else up to the *limit*.
    """
    if not size or limit == 0:
        return []
    if kind.format == PARQUET:
        return _slice_parquet(size, sharding=sharding, limit=limit, opened=opened)
    if kind.compression:
        whole = Slice(Slicing.FILE, 0, size, None, size)
        return [whole if limit is None else _head(whole, kind, limit=limit, opened=opened)]
    if sharding.unit == "rows":
        return _row_counts(size, opened, every=sharding.count, limit=limit)
    step = size if sharding.unit == "files" else sharding.count
    ranges = _byte_ranges(size, step=step)
    return ranges if limit is None else _cut_at(ranges, opened, limit=limit)


def _byte_ranges(size: int, *, step: int) -> list[Slice]:
    pieces = max(1, round(size / step))
    cuts = [size * piece // pieces for piece in range(pieces + 1)]
    return [Slice(Slicing.BYTES, a, b, None, b - a) for a, b in pairwise(cuts)]


def _row_counts(size: int, opened: Opener, *, every: int, limit: int | None) -> list[Slice]:
    slices: list[Slice] = []
    start = rows = end = 0
    with opened() as file:
        for end in islice(_row_ends(file, stop=size), limit):
            rows += 1
            if rows == every:
                slices.append(Slice(Slicing.BYTES, start, end, rows, end - start))
                start, rows = end, 0
    return [*slices, Slice(Slicing.BYTES, start, end, rows, end - start)] if rows else slices


def _cut_at(ranges: Sequence[Slice], opened: Opener, *, limit: int) -> list[Slice]:
    """Keep the ranges that hold the first *limit* rows, and count the rows of each."""
    kept: list[Slice] = []
    with opened() as file:
        for piece in ranges:
            file.seek(max(piece.start - 1, 0))
            ends = list(islice(_row_ends(file, start=piece.start, stop=piece.stop), limit))
            limit -= len(ends)
            if limit:
                kept.append(replace(piece, rows=len(ends)))
            else:
                stop = min(ends[-1], piece.stop)
                return [*kept, replace(piece, stop=stop, rows=len(ends), weight=stop - piece.start)]
    return kept


def _head(whole: Slice, kind: FileKind, *, limit: int, opened: Opener) -> Slice:
    with opened() as file:
        ends = _row_ends(open_compressed(file, kind.compression), stop=None)
        rows = sum(1 for _ in islice(ends, limit + 1))
    if rows <= limit:
        return replace(whole, rows=rows)
    return replace(whole, slicing=Slicing.HEAD, stop=limit, rows=limit)


def _row_ends(stream: ByteStream, *, start: int = 0, stop: int | None) -> Iterator[int]:
    blocks = read_lines(stream, start=start, stop=stop)
    return chain.from_iterable(map(row_ends, blocks))


def _slice_parquet(
    size: int, *, sharding: Sharding, limit: int | None, opened: Opener
) -> list[Slice]:
    fits = sharding.unit == "files" or (sharding.unit == "bytes" and size <= sharding.count * 1.5)
    if fits and limit is None:
        return [Slice(Slicing.FILE, 0, size, None, size)]
    groups = _row_groups(opened)
    if groups is None:  # whoever reads it says why, and it costs its shard, not the plan
        return [Slice(Slicing.FILE, 0, size, None, size)]
    total = sum(rows for rows, _ in groups)
    if sharding.unit == "rows":
        cuts = [*range(0, total, sharding.count), total]
        weight = size // max(len(cuts) - 1, 1)
        slices = [Slice(Slicing.ROWS, a, b, b - a, weight) for a, b in pairwise(cuts) if b > a]
    else:
        slices = _group_runs(groups, sharding=sharding)
    return slices if limit is None else _first_rows(slices, limit=limit)


def _row_groups(opened: Opener) -> list[tuple[int, int]] | None:
    """Return (rows, compressed bytes) of each row group; None where that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened() as file:
        try:
            metadata = pq.ParquetFile(file).metadata
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, StorageError):
                raise
            return None
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return [
        (g.num_rows, sum(g.column(c).total_compressed_size for c in range(g.num_columns)))
        for g in groups
    ]


def _group_runs(groups: Sequence[tuple[int, int]], *, sharding: Sharding) -> list[Slice]:
    slices: list[Slice] = []
    start = rows = weight = 0
    for stop, (group_rows, group_bytes) in enumerate(groups, start=1):
        rows, weight = rows + group_rows, weight + group_bytes
        measure = {"bytes": weight, "row_groups": stop - start}.get(sharding.unit, 0)
        if stop == len(groups) or measure >= sharding.count:
            slices.append(Slice(Slicing.ROW_GROUPS, start, stop, rows, weight))
            start, rows, weight = stop, 0, 0
    return slices


def _first_rows(slices: Sequence[Slice], *, limit: int) -> list[Slice]:
    kept: list[Slice] = []
    first = 0
    for piece in slices:
        rows = piece.rows or 0
        if first + rows >= limit:
            last = Slice(Slicing.ROWS, first, limit, limit - first, piece.weight)
            return [*kept, last]
        kept.append(piece)
        first += rows
    return kept
