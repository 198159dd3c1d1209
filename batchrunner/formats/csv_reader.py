"""Reads the rows of CSV files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from batchrunner.errors import ShardFailedError, StorageError, describe
from batchrunner.formats.chunk import (
    MAX_RAW_BYTES,
    BadRow,
    Position,
    Row,
    Segment,
    Shape,
    UnreadableRowError,
)
from batchrunner.formats.columns import table_to_rows
from batchrunner.formats.compression import ByteStream, open_compressed
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.csv_fields import FieldSplitter, too_long
from batchrunner.formats.csv_header import Header, Prepended, read_header
from batchrunner.formats.csv_records import CsvError, Ends, RecordBlock, Records
from batchrunner.formats.csv_values import typed
from batchrunner.formats.damaged_file import MEND, MEND_OR_MOVE
from batchrunner.formats.declared import declared_schema
from batchrunner.formats.partitions import Partition, add_to_table, contradicting_rows, wanted
from batchrunner.shard import Slice, Slicing


@dataclass(frozen=True, slots=True)
class CsvChunk:
    """The rows of a block of records.

    Attributes:
        content: The rows.
        data: The bytes of all records of the block.
        offset: Offset of the first record in the uncompressed file.
        spans: Start and end in *data* of the record of each row.
        bad: The records that are no rows.
    """

    content: pa.Table
    data: bytes
    offset: int
    spans: tuple[Ends, Ends]
    bad: tuple[BadRow, ...] = ()

    @property
    def types(self) -> pa.Schema:
        schema: pa.Schema = self.content.schema
        return schema

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        try:
            return table_to_rows(self.table(start, stop))
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            raise UnreadableRowError(
                f"Python cannot hold it: {describe(error)}; use batch_format: pyarrow"
            ) from error

    reread = rows

    def segments(self) -> tuple[Segment, ...]:
        return (Segment(0, len(self), Shape(self.content.schema)),)

    def table(self, start: int, stop: int) -> pa.Table:
        return self.content.slice(start, stop - start)

    def positions(self) -> list[int]:
        positions: list[int] = (self.spans[0] + self.offset).tolist()
        return positions

    def locate(self, index: int) -> Position:
        start, end = (int(edge[index]) for edge in self.spans)
        return _position(self.data, self.offset, start, end)


def _position(data: bytes, offset: int, start: int, end: int) -> Position:
    raw = data[start : min(end, start + MAX_RAW_BYTES)]
    return Position("byte", offset + start, raw.removesuffix(b"\n").removesuffix(b"\r"))


class CsvReader:
    """Reads files of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[CsvChunk]:
        """Yield the rows of *piece*, about a megabyte at a time, in file order.

        Raises:
            ShardFailedError: The compressed file is damaged or cut short, the header cannot be read, the
                file lacks a column that is asked for or declared, or it ends inside of quotes.
        """
        try:
            file.seek(0)
            stream = open_compressed(file, compression)
            header = read_header(stream, self._dialect)
            if not header.names:
                return
            parser = BlockParser(header.names, self._dialect, columns, wanted(partition, columns))
            blocks = _blocks(file, piece, header, stream, Records(self._dialect))
            if piece.slicing is Slicing.HEAD:
                blocks = _first_rows(blocks, piece.stop, has_blanks=len(header.names) == 1)
            yield from map(parser.chunk, blocks)
        except CsvError as error:
            raise ShardFailedError(f"{piece.uri}: {error}") from error
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise ShardFailedError(
                f"{piece.uri} cannot be uncompressed: {error}; {MEND}"
            ) from error


def _blocks(
    file: BinaryIO, piece: Slice, header: Header, stream: ByteStream, records: Records
) -> Iterator[RecordBlock]:
    is_cut = piece.slicing is Slicing.BYTES
    start, stop = (piece.start, piece.stop) if is_cut else (0, None)
    if start > header.end:
        file.seek(start)
        return records.blocks(file, start=start, stop=stop)
    return records.blocks(Prepended(header.rest, stream), start=header.end, stop=stop)


def _first_rows(
    blocks: Iterator[RecordBlock], rows: int, *, has_blanks: bool
) -> Iterator[RecordBlock]:
    """Yield the records that hold the first *rows* rows; empty lines are rows with *has_blanks*."""
    for block in blocks:
        found = block if has_blanks else block.without_blanks()
        yield found.until(rows) if len(found.ends) > rows else found
        rows -= max(len(found.ends), 1 if block.overlong else 0)
        if rows <= 0:
            return


class BlockParser:
    """Parses the blocks of one file."""

    def __init__(
        self,
        names: Sequence[str],
        dialect: Dialect,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> None:
        """Keep *columns*, or all if None, in their order in the file; add those of *partition*.

        Raises:
            CsvError: The file lacks one of *columns*, or one that the dialect has a type for.
        """
        elsewhere = {name for name, _ in partition}
        _check_columns(names, columns, dialect, elsewhere=elsewhere)
        _check_read_once(names, columns)
        # Of columns with one name, none is read; Arrow needs a name for each of them.
        is_single = Counter(names)
        names = [n if is_single[n] == 1 else f"\0{at}" for at, n in enumerate(names)]
        self._names, self._partition = tuple(names), partition
        kept = [name for name in names if columns is None or name in columns]
        # Arrow makes no table of rows without columns, as when only those of folders are asked for.
        self._read, self._kept = kept or list(names[:1]), kept
        types = declared_schema(dict(dialect.schema))
        self._schema = pa.schema(
            types.field(name) if name in types.names else pa.field(name, pa.string())
            for name in self._read
        )
        self._has_types = any(name in types.names for name in self._read)
        self._splitter = FieldSplitter(dialect)

    def chunk(self, block: RecordBlock) -> CsvChunk:
        """Return the rows of *block*."""
        if block.overlong:
            return self._overlong(block)
        if len(self._names) > 1:  # else an empty line is a row, whose only field is empty
            block = block.without_blanks()
        table, faults = self._splitter.table(block, self._names, self._read)
        if self._has_types:
            table, others = typed(table, self._schema)
            faults = others | faults
        faults = contradicting_rows(table, self._partition) | faults
        bad = [
            BadRow(
                _position(block.data, block.offset, int(block.starts[n]), int(block.ends[n])),
                faults[n],
            )
            for n in sorted(faults)
        ]
        starts, ends = block.starts, block.ends
        if bad:
            good = np.delete(np.arange(len(ends)), [*faults])
            table, starts, ends = table.take(pa.array(good)), starts[good], ends[good]
        table = add_to_table(table, self._partition)
        if len(self._kept) < len(self._read):
            table = table.drop_columns(self._read)
        return CsvChunk(table, block.data, block.offset, (starts, ends), tuple(bad))

    def _overlong(self, block: RecordBlock) -> CsvChunk:
        position = Position("byte", block.offset, block.data[:MAX_RAW_BYTES])
        bad = BadRow(position, too_long(block.overlong))
        nothing = np.zeros(0, np.int64)
        table = add_to_table(self._schema.empty_table(), self._partition)
        return CsvChunk(table, b"", block.offset, (nothing, nothing), (bad,))


def _check_read_once(names: Sequence[str], columns: Sequence[str] | None) -> None:
    counts = Counter(name for name in names if columns is None or name in columns)
    for name, count in counts.items():
        if count > 1:
            raise CsvError(
                f"two columns have the name {name!r}, and a row keeps one value a name; rename one, or "
                "leave them out with source.columns"
            )


def _missing(name: str, have: str, *, correct: str) -> CsvError:
    return CsvError(f"no column {name!r} in the file; {have}: correct {correct}; {MEND_OR_MOVE}")


def _check_columns(
    names: Sequence[str],
    columns: Sequence[str] | None,
    dialect: Dialect,
    *,
    elsewhere: set[str],
) -> None:
    have = f"it has {', '.join(names)}"
    for name in columns or ():
        if name not in names and name not in elsewhere:
            raise _missing(name, have, correct="source.columns")
    for name, _ in dialect.schema:
        if name not in names:
            raise _missing(name, have, correct="source.schema")
