"""The slices of a plan as one Arrow table, with the id of the shard of each: a row per slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import xxhash

from batchrunner.array_buffers import int_array, text_array
from batchrunner.shard import SLICE_COLUMNS, Shard, Slice, SliceTable, Slicing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PLAN_COLUMNS = ("id", *SLICE_COLUMNS)

ADDED = ("modified", "skip", "take")
"""The columns that plans have since version 3."""

_MAY_LACK = {"rows", "modified", "take"}
FEW_SLICES = 64
"""Up to so many slices of a shard are objects: a table of its own would take more."""


def table_of(shards: Iterable[Shard]) -> pa.Table:
    """Return the slices of *shards*, in order."""
    import pyarrow as pa

    tables = [_table((), ())]
    for is_table, some in groupby(shards, lambda shard: isinstance(shard.slices, SliceTable)):
        if is_table:
            tables += [_table([shard.id] * len(shard.slices), shard.slices) for shard in some]
        else:
            pairs = [(shard.id, piece) for shard in some for piece in shard.slices]
            tables.append(_table([id_ for id_, _ in pairs], [piece for _, piece in pairs]))
    return pa.concat_tables(tables)


def as_plan_table(table: pa.Table) -> pa.Table:
    """Return *table*, as it was read, with the columns and types of a plan.

    Raises:
        KeyError, ValueError: It is no plan.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in ADDED:
        if name not in table.column_names:
            value = pa.scalar(0 if name == "skip" else None, pa.int64())
            table = table.append_column(name, pa.repeat(value, len(table)))
    plan = table.select(PLAN_COLUMNS).cast(_table((), ()).schema).replace_schema_metadata(None)
    for word in pc.unique(plan.column("slicing")).to_pylist():
        Slicing(word)  # it raises for an unknown one
    if any(plan.column(name).null_count for name in PLAN_COLUMNS if name not in _MAY_LACK):
        raise ValueError("a value is missing")
    return plan


def _table(ids: Sequence[int], slices: Sequence[Slice]) -> pa.Table:
    import pyarrow as pa

    table = SliceTable.of(slices).table
    columns = [int_array(ids), *(table.column(name) for name in SLICE_COLUMNS)]
    return pa.Table.from_arrays(columns, names=list(PLAN_COLUMNS))


def shards_in(table: pa.Table) -> Iterator[Shard]:
    """Yield the shards of *table*: neighbouring rows with one id are the slices of one."""
    for is_few, groups in groupby(_groups(table), lambda group: len(group) <= FEW_SLICES):
        if not is_few:
            for rows in groups:
                some = table.slice(rows.start, len(rows))
                yield Shard(some.column("id")[0].as_py(), SliceTable(some.select(SLICE_COLUMNS)))
            continue
        together = list(groups)
        first, stop = together[0].start, together[-1].stop
        some = table.slice(first, stop - first)
        ids, slices = some.column("id").to_pylist(), list(SliceTable(some))
        for rows in together:
            start, end = rows.start - first, rows.stop - first
            yield Shard(ids[start], tuple(slices[start:end]))


def _groups(table: pa.Table) -> Iterator[range]:
    """Yield the numbers of the rows of each shard."""
    import numpy as np

    ids = np.concatenate(
        [np.empty(0, "<i8"), *(_numbers(c) for c in table.column("id").chunks if len(c))]
    )
    ends = [*(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)] if len(ids) else []
    yield from (range(start, stop) for start, stop in pairwise([0, *ends]))


def identified(table: pa.Table, identities: Mapping[str, str]) -> pa.Table:
    """Return *table* with new *identities*, by URI, of files whose bytes did not change."""
    import pyarrow.compute as pc

    uris, new = text_array(list(identities)), text_array(list(identities.values()))
    found = pc.index_in(table.column("uri"), value_set=uris)
    identity = pc.coalesce(new.take(found.combine_chunks()), table.column("identity"))
    return _with(table, "identity", identity)


def moved(table: pa.Table, move: Callable[[str], str]) -> pa.Table:
    """Return *table* with the URI of each file as *move* gives it."""
    uris = [move(uri) for uri in table.column("uri").to_pylist()]
    return _with(table, "uri", text_array(uris))


def _with(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def content_hash(table: pa.Table) -> str:
    """Return the XXH3-128, in hex, of the values of *table*, however they are stored."""
    whole = xxhash.xxh3_128()
    for name in table.column_names:
        whole.update(f"{name} {len(table)} ".encode())
        lengths, values = xxhash.xxh3_128(), xxhash.xxh3_128()
        for chunk in table.column(name).chunks:
            _feed(chunk, lengths, values)
        whole.update(lengths.digest() + values.digest())
    return whole.hexdigest()


def _numbers(chunk: pa.Array) -> np.ndarray[Any, Any]:
    """Return the numbers in *chunk*, any number for a null. Its `to_numpy` would import pandas."""
    import numpy as np

    return np.frombuffer(chunk.buffers()[1], "<i8", offset=8 * chunk.offset, count=len(chunk))


def _feed(chunk: Any, lengths: xxhash.xxh3_128, values: xxhash.xxh3_128) -> None:
    import numpy as np
    import pyarrow as pa

    if not len(chunk):
        return
    validity, *buffers = chunk.buffers()
    here = slice(chunk.offset, chunk.offset + len(chunk) + 1)
    if pa.types.is_integer(chunk.type):
        numbers = _numbers(chunk).copy()
        if chunk.null_count:  # no count is negative: -1 is a null
            known = np.unpackbits(np.frombuffer(validity, "u1"), bitorder="little")
            numbers[known[here][: len(chunk)] == 0] = -1
        values.update(numbers.data)
        return
    offsets, data = buffers
    ends = np.frombuffer(offsets, "<i8")[here]
    lengths.update(np.ascontiguousarray(np.diff(ends)).data)
    if data is not None:
        values.update(memoryview(data)[ends[0] : ends[-1]])
