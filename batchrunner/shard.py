"""The unit of work, of retry, of commit and of resume: slices of one or several source files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, overload

from batchrunner.array_buffers import int_array, text_array

if TYPE_CHECKING:
    import pyarrow as pa


class Slicing(StrEnum):
    """What the `start` and `stop` of a slice count."""

    BYTES = "bytes"
    """Byte offsets of an uncompressed file. A row belongs to the slice that has its first byte."""
    ROW_GROUPS = "row_groups"
    """Row groups of a Parquet file, or record batches of an Arrow file."""
    ROWS = "rows"
    """Rows of a Parquet or Arrow file."""
    FILE = "file"
    """The whole file; `start` and `stop` are 0 and its size in bytes."""
    HEAD = "head"
    """The first `stop` rows of a compressed file, which cannot be cut."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters of the shard `start` that are in this file. The first such slice of a shard has their
    number in all its files as `stop`, the others 0: which file they are in is read when they are."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A contiguous slice of one source file.

    Attributes:
        uri: Absolute URI of the file.
        slicing: What *start* and *stop* count.
        start: First unit of the slice.
        stop: One past the last unit.
        size: Size of the whole file, in bytes.
        identity: ETag or modification time of the file, as listed when the slice was planned.
        rows: Rows in the slice; None where planning did not count them.
        weight: Estimated bytes to read.
        modified: When the file was last written, as listed when the slice was planned, in microseconds
            since 1970 UTC; None if the store has no time.
        skip: Rows at the start, unreadable ones included, that belong to other shards.
        take: How many rows after these belong to this one, unreadable ones included; None for all.
    """

    uri: str
    slicing: Slicing
    start: int
    stop: int
    size: int
    identity: str
    rows: int | None = None
    weight: int = 0
    modified: int | None = None
    skip: int = 0
    take: int | None = None

    @property
    def has_window(self) -> bool:
        """Whether some of the rows between *start* and *stop* belong to other shards."""
        return bool(self.skip) or self.take is not None

    def rows_from(self, first: int, count: int | None, *, of: int | None) -> Slice:
        """Return the slice with *count* of its rows, or all others if that is None, from number *first* on.

        It has *of* rows, unreadable ones included; None if they were not counted.
        """
        left = None if of is None else of - first
        rows = left if count is None else count
        share = 1.0 if rows is None or not of else rows / of
        take = count if count is not None or self.take is None else self.take - first
        weight = round(self.weight * share)
        return replace(self, skip=self.skip + first, take=take, rows=rows, weight=weight)

    @property
    def window(self) -> str:
        """The numbers of its rows among those between *start* and *stop*; "" if it has all."""
        if not self.has_window:
            return ""
        return f"rows {self.skip}-{'' if self.take is None else self.skip + self.take}"

    @property
    def extent(self) -> tuple[str, int, int]:
        """What it reads, for records of one line: what is counted, from where, and to where.

        With a window, rows, of a larger slice such as `rows of bytes 0-4096`.
        """
        if not self.has_window:
            return str(self.slicing), self.start, self.stop
        start, whole = 0, ""
        if self.slicing is Slicing.ROWS:
            start = self.start
        elif self.slicing is not Slicing.FILE:
            whole = f" of {self.slicing} {self.start}-{self.stop}"
        first = start + self.skip
        return f"rows{whole}", first, first + (self.take or self.rows or 0)

    def __str__(self) -> str:
        if self.slicing is Slicing.DEAD_LETTERS:
            return f"{self.uri}, dead letters of shard {self.start}"
        where = "" if self.slicing is Slicing.FILE else f"{self.slicing} {self.start}-{self.stop}"
        return ", ".join(filter(None, (self.uri, where, self.window)))


SLICE_COLUMNS = tuple(one.name for one in fields(Slice))
"""The columns of a table of slices, in the order of the fields of `Slice`."""

_TEXTS = ("uri", "slicing", "identity")
_AT_ONCE = 4096


class SliceTable(Sequence[Slice]):
    """Slices as columns of an Arrow table: a million of them take some 150 MB, and few objects.

    Equal to any sequence of equal slices. Pickled, it has its own rows only, not those of the table that
    it was cut from.
    """

    __slots__ = ("table",)

    def __init__(self, table: pa.Table) -> None:
        """Make one of a *table* with `SLICE_COLUMNS`; it may have others."""
        self.table = table

    @classmethod
    def of(cls, slices: Sequence[Slice]) -> SliceTable:
        """Return *slices* as a table; as they are if they are one."""
        if isinstance(slices, SliceTable):
            return slices
        import pyarrow as pa

        columns = ([getattr(piece, name) for piece in slices] for name in SLICE_COLUMNS)
        arrays = [
            text_array(column) if name in _TEXTS else int_array(column)
            for name, column in zip(SLICE_COLUMNS, columns, strict=True)
        ]
        return cls(pa.Table.from_arrays(arrays, names=list(SLICE_COLUMNS)))

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]  # pyarrow is untyped

    def __iter__(self) -> Iterator[Slice]:
        for start in range(0, len(self), _AT_ONCE):
            yield from _slices(self.table.slice(start, _AT_ONCE))

    @overload
    def __getitem__(self, index: int) -> Slice: ...
    @overload
    def __getitem__(self, index: slice) -> SliceTable: ...
    def __getitem__(self, index: int | slice) -> Slice | SliceTable:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return next(_slices(self.table.slice(numbers, 1)))
        assert numbers.step == 1, "slices are neighbours"  # noqa: S101
        return SliceTable(self.table.slice(numbers.start, len(numbers)))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SliceTable):
            return bool(self.table.equals(other.table))
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self):,} slices>"

    def __reduce__(self) -> tuple[Any, ...]:
        import pyarrow as pa

        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, self.table.schema) as stream:
            stream.write_table(self.table)
        return _from_ipc, (buffer.getvalue().to_pybytes(),)

    def sums(self) -> tuple[int | None, int]:
        """Return the rows, None where one is not known, and the weight of all slices."""
        import pyarrow.compute as pc

        rows, weight = (self.table.column(name) for name in ("rows", "weight"))
        return None if rows.null_count else pc.sum(rows).as_py(), pc.sum(weight).as_py() or 0


def _from_ipc(data: bytes) -> SliceTable:
    import pyarrow as pa

    return SliceTable(pa.ipc.open_stream(data).read_all())


def _slices(table: pa.Table) -> Iterator[Slice]:
    columns = [table.column(name).to_pylist() for name in SLICE_COLUMNS]
    columns[1] = map(Slicing, columns[1])
    return map(Slice, *columns)


def _sums(slices: Sequence[Slice]) -> tuple[int | None, int]:
    if isinstance(slices, SliceTable):
        return slices.sums()
    rows = [piece.rows for piece in slices]
    known = [count for count in rows if count is not None]
    weight = sum(piece.weight for piece in slices)
    return sum(known) if len(known) == len(rows) else None, weight


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """Where an attempt ended its shard early, because it was slow: the rest becomes new shards.

    Attributes:
        slices: How many of the shard's slices it read, the last one perhaps in part; at least 1.
        rows: How many rows of the last of these it read, unreadable ones included; 0 for all.
        total: How many rows that slice has; 0 if *rows* is, or if its file cannot be read to its end.
    """

    slices: int
    rows: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Slices of one or several source files, whose rows make one part.

    Attributes:
        id: Number from 0. The first plan with these slices assigns it; later plans keep it.
        slices: The slices, at least one, in the order in which their rows are read.
        rows: Rows in all slices; None where planning did not count them all.
        weight: Estimated bytes to read: the largest shards are dispatched first.
    """

    id: int
    slices: Sequence[Slice]
    rows: int | None = field(init=False, compare=False)
    weight: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        rows, weight = _sums(self.slices)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "weight", weight)

    @property
    def first(self) -> Slice:
        """The first of its slices, which stands for the shard where there is room for one."""
        return self.slices[0]

    @property
    def retries(self) -> int | None:
        """Id of the shard whose dead letters this one makes again; None if it reads its slices."""
        return self.first.start if self.first.slicing is Slicing.DEAD_LETTERS else None

    def ends_at(self, end: EarlyEnd) -> bool:
        """Return whether the shard has nothing after *end*."""
        return len(self.slices) == end.slices and end.rows in {0, self.slices[-1].take}

    def until(self, end: EarlyEnd | None) -> Shard:
        """Return the shard without what comes after *end*; as it is without one. Idempotent."""
        if end is None or self.ends_at(end):
            return self
        *whole, last = self.slices[: end.slices]
        if end.rows:
            last = last.rows_from(0, end.rows, of=end.total or None)
        return Shard(self.id, (*whole, last))

    @property
    def extent(self) -> tuple[str, int, int]:
        """What it reads, for records of one line: slicing, start and stop of its only slice.

        Of several, `files`, 0 and their number; the first of them is `first`.
        """
        if len(self.slices) > 1 and self.retries is None:
            return "files", 0, len(self.slices)
        return self.first.extent

    def __str__(self) -> str:
        others = len(self.slices) - 1
        return f"shard {self.id} ({self.first}{f' and {others:,} more' if others else ''})"
