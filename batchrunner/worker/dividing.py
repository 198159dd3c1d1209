"""Divides what a capability returned for the rows of several shards: one row for each, in order.

It is divided as it was returned, before it is converted for the sink: so a shard gets what it would
have got if its rows had been a batch of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from batchrunner.worker.returned_checks import (
    check_lengths,
    check_polars,
    checked_column,
    is_dataframe,
    module_of,
    no_batch,
    own_table,
)

if TYPE_CHECKING:
    import pyarrow as pa


class RowCountError(ValueError):
    """The capability is declared to map rows one to one, and returned another number of rows."""


def check_counts(returned: Sequence[int], wanted: Sequence[int]) -> None:
    """Check that as many rows were *returned* for each shard as it has.

    Raises:
        RowCountError: There are more, or fewer.
    """
    if list(returned) != list(wanted):
        raise RowCountError(
            f"the capability returned {sum(returned):,} rows for {sum(wanted):,}; by "
            "capability.one_to_one it returns one for each, in their order: return one, or take "
            "one_to_one out of the spec"
        )


def divided(returned: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """Return what was *returned* for a batch divided among shards that have *counts* of its rows.

    Args:
        returned: What the capability returned or, piece by piece, yielded.
        counts: Number of rows of each shard. What belongs to a single one is not looked at.

    Raises:
        RowCountError: There are more rows than the shards have, or fewer.
        TypeError: Something returned is no batch.
        ValueError: Columns differ in length.
    """
    if len(counts) == 1:
        return [list(returned)]
    pieces = [cuttable(piece) for piece in returned]
    check_counts([sum(map(count_of, pieces))], [sum(counts)])
    stops = list(accumulate(counts))
    return [
        list(_cut(pieces, stop - count, stop)) for stop, count in zip(stops, counts, strict=True)
    ]


def _cut(pieces: Sequence[Any], start: int, stop: int) -> Iterator[Any]:
    """Yield rows *start* to *stop* of *pieces*, which follow one another."""
    first = 0
    for piece in pieces:
        last = first + count_of(piece)
        if max(first, start) < min(last, stop):
            yield rows_of(piece, max(start - first, 0), min(stop, last) - first)
        first = last


@dataclass(frozen=True, slots=True)
class Imported:
    """A table of another library, read through Arrow's C interface, of which it keeps the types."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def cuttable(returned: Any) -> Any:
    """Return *returned* in a form that can be cut.

    Raises:
        TypeError: It is no batch.
        ValueError: Its columns differ in length.
    """
    import pyarrow as pa

    if isinstance(returned, list) or is_dataframe(returned):
        return returned
    if isinstance(returned, Mapping):
        columns = {n: _column(checked_column(n, column)) for n, column in returned.items()}
        check_lengths({name: len(column) for name, column in columns.items()})
        return columns
    if (own := own_table(returned)) is not None:
        return own
    check_polars(returned)
    if not hasattr(returned, "__arrow_c_stream__"):
        raise no_batch(returned)
    return Imported(pa.table(returned))


def _column(column: Any) -> Any:
    import pyarrow as pa

    if isinstance(column, list | tuple) or module_of(column) in {"numpy", "pandas", "pyarrow"}:
        return column
    if hasattr(column, "__arrow_c_stream__"):
        return pa.chunked_array(column)
    if hasattr(column, "__arrow_c_array__"):
        return pa.array(column)
    return column if hasattr(column, "ndim") else list(column)  # ndim: an array, such as a tensor


def count_of(piece: Any) -> int:
    """Return how many rows *piece* has, which is cuttable."""
    if isinstance(piece, dict):
        return len(next(iter(piece.values()))) if piece else 0
    return piece.table.num_rows if isinstance(piece, Imported) else len(piece)


def rows_of(piece: Any, start: int, stop: int) -> Any:
    """Return rows *start* to *stop* of *piece*, in its own kind."""
    if isinstance(piece, dict):
        return {name: _values(column, start, stop) for name, column in piece.items()}
    if isinstance(piece, Imported):
        return Imported(piece.table.slice(start, stop - start))
    return _values(piece, start, stop)


def _values(column: Any, start: int, stop: int) -> Any:
    if module_of(column) == "pandas":
        return column.iloc[start:stop]
    if module_of(column) == "pyarrow":
        return column.slice(start, stop - start)
    return column[start:stop]
