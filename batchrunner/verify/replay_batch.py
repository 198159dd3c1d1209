"""Batches for a replay: rows as our own readers gave them, in the shape that a capability takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from batchrunner.verify.reading import Numbered, Numbers, row_of

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_BYTES = 64 << 20


class ReplayBatch(Protocol):
    """What a `Caller` asks of a batch, and halves of it.

    Attributes:
        first: Where its first row stands in the source.
    """

    @property
    def first(self) -> int:
        """Where its first row stands in the source."""

    def __len__(self) -> int:
        """Count the rows."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, made anew each time: the receiver may change them."""

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`."""

    def halves(self) -> tuple[ReplayBatch, ReplayBatch]:
        """Return the first and the second half."""


@dataclass(frozen=True, slots=True)
class LineBatch:
    """Lines of JSON."""

    lines: Numbered
    columns: tuple[str, ...] | None

    @property
    def first(self) -> int:
        return self.lines[0][0]

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self) -> list[dict[str, Any]]:
        found = [row_of(line) for _, line in self.lines]
        if self.columns is None:
            return found
        return [{name: row[name] for name in self.columns if name in row} for row in found]

    def in_format(self, batch_format: str) -> Any:
        from batchrunner.formats.columns import rows_to_table

        if batch_format == "rows":
            return self.rows()
        return _in_format(rows_to_table(self.rows()), batch_format)

    def halves(self) -> tuple[LineBatch, LineBatch]:
        middle = len(self) // 2
        one, other = self.lines[:middle], self.lines[middle:]
        return LineBatch(one, self.columns), LineBatch(other, self.columns)


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Rows of Parquet, with their numbers in the file."""

    table: pa.Table
    numbers: Sequence[int]

    @property
    def first(self) -> int:
        return self.numbers[0]

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self) -> list[dict[str, Any]]:
        from batchrunner.formats.columns import table_to_rows

        return table_to_rows(self.table)

    def in_format(self, batch_format: str) -> Any:
        return self.rows() if batch_format == "rows" else _in_format(self.table, batch_format)

    def halves(self) -> tuple[TableBatch, TableBatch]:
        middle = len(self) // 2
        one = TableBatch(self.table.slice(0, middle), self.numbers[:middle])
        return one, TableBatch(self.table.slice(middle), self.numbers[middle:])


def _in_format(table: pa.Table, batch_format: str) -> Any:
    # The shapes that values are handed over in are a promise to the capability, so they are made
    # by the code that keeps it; which rows there are, in which order, is found out here.
    from batchrunner.worker.batch import in_format

    return in_format(table, batch_format)


def line_batches(
    lines: Iterator[Numbered], *, aside: Numbers, size: int, columns: tuple[str, ...] | None
) -> Iterator[LineBatch]:
    """Yield the rows in batches of *size*, but for those that were set *aside*."""
    held: Numbered = []
    held_bytes = 0
    for at, line in (item for some in lines for item in some):
        if at in aside:
            continue
        held.append((at, line))
        held_bytes += len(line)
        if len(held) == size or held_bytes >= _MOST_BYTES:
            yield LineBatch(held, columns)
            held, held_bytes = [], 0
    if held:
        yield LineBatch(held, columns)


def table_batches(
    tables: Iterator[tuple[int, pa.Table]], *, wanted: Numbers | None, aside: Numbers, size: int
) -> Iterator[TableBatch]:
    """Yield the rows in batches of *size*: those *wanted*, but for those set *aside*."""
    import pyarrow as pa

    held: list[pa.Table] = []
    numbers: list[int] = []
    for first, table in tables:
        every = range(first, first + len(table))
        ours = [n for n in every if n not in aside and (wanted is None or n in wanted)]
        held += [table.slice(a - first, b - a) for a, b in _runs(ours)]
        numbers += ours
        while len(numbers) >= size or sum(t.nbytes for t in held) >= _MOST_BYTES:
            whole = pa.concat_tables(held)
            yield TableBatch(whole.slice(0, size), numbers[:size])
            held, numbers = [whole.slice(size)], numbers[size:]
    if numbers:
        yield TableBatch(pa.concat_tables(held), numbers)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last of each run of neighbours.

    Slices of these, because Arrow cannot take single rows of every type.
    """
    breaks = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    for start, stop in pairwise([0, *breaks, len(numbers)] if numbers else []):
        yield numbers[start], numbers[stop - 1] + 1
