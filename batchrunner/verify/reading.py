"""Reads source files for `verify`, with the second reader of each format.

It shares no code with the readers of the worker, so `--key`, `--replay` and the row counts do not
repeat a mistake of the worker's.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from batchrunner.checkpoint import PlanFacts, RunLocation
from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.formats.contract import RecordReader, Records, TableReader
from batchrunner.formats.format_error import part_reader_of, second_reader_of
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import DEFAULT, FileKind
from batchrunner.shard import Slice
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = frozenset[int]
"""Positions of rows in their file: offsets of lines, numbers of Parquet rows."""

Folders = Mapping[str, str | None]
"""Columns that the folders of a file name, such as `date=2026-01-01/`."""

GONE = (ObjectChangedError, ObjectNotFoundError)
"""The errors raised if a file is gone, or no longer the one that the run read."""


def unreadable() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a damaged file may raise."""
    import pyarrow as pa

    return (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException, ValueError)


class UncountableError(StorageError):
    """The file is still the one that the run read, but cannot be read."""


class SourceReader:
    """Reads and counts the rows of slices of the files of *source*. Safe in several threads.

    Methods that read raise ObjectChangedError or ObjectNotFoundError if the file is not as it was when
    its slice was planned.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._readers: dict[str, RecordReader | TableReader] = {}

    def of(self, piece: Slice) -> RecordReader | TableReader:
        """Return the second reader of the format of *piece*."""
        kind = self._kind(piece)
        # One for each format: a reader may cache what it read of a file, such as its footer.
        return self._readers.setdefault(kind.format, second_reader_of(kind.reader))

    def count(self, piece: Slice) -> int:
        """Return the row count of *piece*, which must not be one of dead letters.

        Raises:
            UncountableError: The file of the slice cannot be read.
        """
        rows = max(self._count(piece, after=False) - piece.skip, 0)
        return rows if piece.take is None else min(rows, piece.take)

    def count_after(self, piece: Slice) -> int:
        """Return the row count of the file after *piece*. Raises the errors of `count`."""
        after = self._count(piece, after=True)
        if piece.take is None:
            return after
        return after + max(self._count(piece, after=False) - piece.skip - piece.take, 0)

    def _count(self, piece: Slice, *, after: bool) -> int:
        compression, opened = self._kind(piece).compression, partial(self._open, piece)
        try:
            return self.of(piece).count_rows(piece, opened, compression=compression, after=after)
        except StorageError:
            raise
        except unreadable() as error:
            raise UncountableError(f"{piece.uri} cannot be read: {error}") from error

    def records(
        self, reader: RecordReader, piece: Slice, *, wanted: Numbers | None
    ) -> Iterator[Records]:
        """Yield the records of *piece*; with *wanted*, those at these positions of its file."""
        if wanted is not None and not wanted:
            return
        compression = self._kind(piece).compression
        with self._open(piece) as file:
            read = reader.records(file, piece, wanted=wanted, compression=compression)
            if wanted is None:
                yield from (some for _, some in _windowed(((0, one) for one in read), piece))
            else:
                yield from ([item for item in some if item[0] in wanted] for some in read)

    def tables(
        self,
        reader: TableReader,
        piece: Slice,
        *,
        wanted: Numbers | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield the rows of *piece*, each table with the number of its first row in the file.

        With *wanted*, yield the rows with these numbers instead; neighbours may come with them. The
        tables have those of *columns* that the file or its folders have.
        """
        if wanted is not None and not wanted:
            return
        folders = self.folders(piece, columns=columns)
        with self._open(piece) as file:
            read = reader.tables(file, piece, wanted=wanted, columns=columns)
            for first, table in read if wanted is not None else _windowed(read, piece):
                yield first, _only(_with_folders(table, folders), columns)

    def folders(self, piece: Slice, *, columns: Sequence[str] | None) -> Folders:
        """Return which of *columns* the folders of the file name, with their values.

        None stands for all columns.
        """
        if self._source.partitioning == "none":
            return {}
        named = partition_columns(piece.uri, self._source.uris)
        return {name: text for name, text in named if columns is None or name in columns}

    def _kind(self, piece: Slice) -> FileKind:
        return self._source.kind_of(piece.uri) or FileKind(DEFAULT)

    def _open(self, piece: Slice) -> BinaryIO:
        storage, key = locate(piece.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, piece.size, piece.identity))


def _windowed(read: Iterator[tuple[int, Any]], piece: Slice) -> Iterator[tuple[int, Any]]:
    """Yield the rows of *read* that lie in the window of *piece*, of which *read* has all.

    They come as lists or tables, each with the number of its first row in the file.
    """
    if not piece.has_window:
        yield from read
        return
    skip, left = piece.skip, piece.take
    for first, rows in read:
        some = rows[skip:] if left is None else rows[skip : skip + left]
        if len(some):
            yield first + skip, some
        skip = max(skip - len(rows), 0)
        left = None if left is None else left - len(some)
        if left == 0:
            return


def part_reader(run: RunLocation, facts: PlanFacts) -> RecordReader | TableReader:
    """Return a second reader of the parts of *run*, with the types that they agree on.

    Raises:
        DamagedOutputError: The types are needed and cannot be read.
    """

    def agreed() -> pa.Schema | None:
        schemas = run.checkpoint.schemas()
        return schemas[-1] if schemas else None

    return part_reader_of(facts.part_format, types=agreed, compression=facts.compression)


def with_folders(row: dict[str, Any], folders: Folders) -> dict[str, Any]:
    """Return *row* with the columns of *folders* that it lacks, or in which it has null."""
    own = {name: value for name, value in row.items() if value is not None}
    return {**row, **folders, **own} if folders else row


def _with_folders(table: pa.Table, folders: Folders) -> pa.Table:
    import pyarrow as pa

    for name, value in folders.items():
        text = pa.repeat(pa.scalar(value, pa.string()), len(table))
        if name not in table.column_names:
            table = table.append_column(name, text)
        elif table.column(name).null_count:
            at = table.column_names.index(name)
            table = table.set_column(at, name, text.cast(table.column(name).type))
    return table


def _only(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return *table* with only *columns*; unchanged if it has none of them.

    A table may have others: asked for `a`, Arrow also reads `a.b`; and if the file has none of
    *columns*, a reader reads another one, since a table without columns has no rows.
    """
    names = [name for name in table.column_names if columns is None or name in columns]
    return table.select(names) if names else table
