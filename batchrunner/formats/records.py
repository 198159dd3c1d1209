"""Chunks of rows that are parsed record by record: most of what a new `RowFormat` needs to read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row, Segment
from batchrunner.formats.contract import Records
from batchrunner.formats.partitions import Partition, add_to_rows, wanted

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.formats.shapes import RowTable

Parse = Callable[[bytes], Row]
"""Returns the row that a record holds; raises ValueError, with the reason, if it holds none."""


class ParsedRows:
    """The methods of a chunk that need only its parsed rows."""

    parsed: list[Row]

    @property
    def types(self) -> None:
        return None

    def __len__(self) -> int:
        return len(self.parsed)

    def rows(self, start: int, stop: int) -> list[Row]:
        return self.parsed[start:stop]

    @cached_property
    def tables(self) -> list[RowTable]:
        """The rows of the chunk as tables, cut without regard to batches."""
        from batchrunner.formats.shapes import tables_of

        return list(tables_of(self.parsed))

    def segments(self) -> list[Segment]:
        return [one.segment for one in self.tables]

    def table(self, start: int, stop: int) -> pa.Table:
        index = bisect_right(self.tables, start, key=lambda one: one.segment.start) - 1
        return self.tables[index].rows(start, stop)


@dataclass(frozen=True)
class RecordChunk(ParsedRows):
    """Some records of a file, parsed.

    Attributes:
        parsed: The rows.
        records: The records that the rows were parsed from, in the same order.
        parse: Parses a record into its row.
        unit: What a position counts, see `Position`.
        bad: The records that hold no row.
    """

    parsed: list[Row]
    records: Records
    parse: Parse
    unit: str
    bad: tuple[BadRow, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(len(record) for _, record in self.records)

    def reread(self, start: int, stop: int) -> list[Row]:
        return [self.parse(record) for _, record in self.records[start:stop]]

    def positions(self) -> list[int]:
        return [at for at, _ in self.records]

    def locate(self, index: int) -> Position:
        at, record = self.records[index]
        return Position(self.unit, at, record[:MAX_RAW_BYTES])


def chunk_of(
    records: Records,
    parse: Parse,
    *,
    unit: str,
    columns: tuple[str, ...] | None,
    partition: Partition,
) -> RecordChunk:
    """Parse *records* into a chunk: only *columns*, or all, with those of *partition* added.

    A record that *parse* refuses, or that contradicts *partition*, is a bad row.
    """
    said = wanted(partition, columns)

    def whole(record: bytes) -> Row:
        (row,) = project([parse(record)], columns)
        if faults := add_to_rows([row], said):
            raise ValueError(faults[0])
        return row

    parsed: list[Row] = []
    good: Records = []
    bad: list[BadRow] = []
    for at, record in records:
        try:
            parsed.append(whole(record))
            good.append((at, record))
        except ValueError as error:
            bad.append(BadRow(Position(unit, at, record[:MAX_RAW_BYTES]), str(error)))
    return RecordChunk(parsed, good, whole, unit, tuple(bad))


def project(rows: list[Row], columns: tuple[str, ...] | None) -> list[Row]:
    """Return *rows* with only the keys in *columns*; None keeps all."""
    if columns is None:
        return rows
    return [{key: row[key] for key in columns if key in row} for row in rows]
