"""The contract of a file format: cut files, read them, write parts, and read again for `verify`.

A new format is one subclass of `RowFormat` or `TableFormat` and one line in `registry.py`, or one
call of `register` from outside; the suite in `batchrunner/testing/formats_contract.py` holds it to
what is promised here. Importing the module of a named format must be cheap, since `batchrunner
validate` reads its suffixes: import a large library inside the methods. An exception in `encode`, or
in parsing a record, fails its row; in `read` or the writer, its shard; in `cut`, the run.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Protocol

from batchrunner.formats.chunk import Chunk, Row
from batchrunner.formats.compression import RowPart
from batchrunner.formats.hashing import ReadHash, SourceHash, has_same_extent
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.formats.partitions import Partition

Opener = Callable[[], BinaryIO]
"""Opens a source file for reading and seeking, as long as it is the file that was listed."""

Settle = Callable[["pa.Schema"], "pa.Schema"]
"""Given the schema of a part's own rows, returns the schema to write."""

Restart = Callable[[], tuple[BinaryIO, io.RawIOBase]]
"""Returns the file written so far, opened for reading, and a new file that replaces it."""

Records = list[tuple[int, bytes]]
"""Rows that are not parsed yet: the position and the bytes of each."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """The size of a shard: *count* of *unit*."""

    unit: Literal["bytes", "rows", "row_groups", "files"]
    count: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Where `cut` cuts a file; the fields are those of `Slice`, without what the listing knows.

    A format leaves out the last two: windows are made by the driver, of what a format cannot cut by rows.
    """

    slicing: Slicing
    start: int
    stop: int
    rows: int | None
    weight: int
    skip: int = 0
    take: int | None = None


class PartWriter(Protocol):
    """Writes the rows of one part to its file."""

    def append(self, rows: Any) -> None:
        """Add rows: bytes from `RowFormat.encode`, or a table. The writer may buffer them."""

    def close(self) -> None:
        """Write all buffered rows. Leaves the file open."""


class Format(ABC):
    """A file format. Stateless: one instance serves all threads of a process.

    Attributes:
        suffixes: Ends of file names, such as ".jsonl"; parts get the first. If there are none, the
            format takes files of any name, where the spec names it.
        outer: Compressions of a whole file, such as "gz", that `read` and `cut` undo; the file is then
            called ".jsonl.gz", for example.
        compressions: Values of `sink.compression` that the format takes.
        default_compression: The compression of parts if the spec names none.
        has_row_groups: Whether `source.shard.row_groups` applies to the format.
        reads_to_cut: Whether `cut` opens the file even if it need not count rows: the driver then cuts
            many files at a time.
        keeps_schema: Whether columns have types, on which all parts must agree.
        written_as: The format of the parts of a run over its files, if the spec names none and it is
            another. A format that sinks do not take has no `compressions`.
        gives_way: Whether files of other formats, or files that are no data, often have these suffixes
            too. Then `source.format` may name another format for such a file, and in a folder with
            files of other formats it is passed over, with a warning.
        cuts_by_bytes: Whether `cut` makes slices of about so many bytes, where these are asked for.
        has_empty_files: Whether an empty file may hold a row: `cut` gets it, too.
        needs_bytes: Whether a file without rows has bytes, too, such as a footer: one of 0 bytes counts
            as a file without rows, and the user is warned of it.
        publishes_files: Whether its parts list files that are published beside them: `Listing` alone.
    """

    suffixes: ClassVar[tuple[str, ...]]
    outer: ClassVar[tuple[str, ...]] = ()
    compressions: ClassVar[tuple[str, ...]] = ("none",)
    default_compression: ClassVar[str] = "none"
    has_row_groups: ClassVar[bool] = False
    reads_to_cut: ClassVar[bool] = True
    keeps_schema: ClassVar[bool]
    written_as: ClassVar[str] = ""
    gives_way: ClassVar[bool] = False
    cuts_by_bytes: ClassVar[bool] = True
    has_empty_files: ClassVar[bool] = False
    needs_bytes: ClassVar[bool] = False
    publishes_files: ClassVar[bool] = False

    @property
    def of_parts(self) -> Format:
        """The format of parts under this name: this one, unless files and parts of it differ."""
        return self

    @abstractmethod
    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        """Cut a file of *size* bytes, more than 0 unless `has_empty_files`, into slices.

        The slices are in order, begin at 0, and have no gaps and no overlap: every row lies in exactly
        one slice. A header line belongs to the first slice. With a *limit*, which is at least 1, the
        slices hold the first *limit* rows, and each has its row count. A damaged file is one slice: the
        worker that reads it reports the damage, which fails the shard and not the plan. May be called
        in several threads.
        """

    @abstractmethod
    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        """Yield the rows of *piece* in file order, in bounded memory.

        A row that cannot be read is a `BadRow` of its chunk and affects no other row. The same slice
        always gives the same rows at the same positions.

        Args:
            file: The whole file, open for reading and seeking.
            piece: The slice of the file to read.
            compression: The compression of the whole file, or None.
            columns: The columns to keep, or None for all.
            partition: Columns that the folders of the file name, to be added to each row.

        Raises:
            ShardFailedError: The file is damaged or cut short. Rows before the damage may have been
                yielded.
            StorageError: The storage failed. Raised unchanged, since another worker may succeed.
        """

    def read_by_columns(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        """As `read`, with the same rows: its chunks are only asked for tables, which may save time."""
        return self.read(file, piece, compression=compression, columns=columns, partition=partition)

    @abstractmethod
    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        """Return a slice of the file of *piece* that holds the rows at *positions*.

        It may hold other rows, too: `retry --rows` reads the slice and keeps only the rows at the
        positions.
        """

    def source_hash(self, piece: Slice, *, columns: Sequence[str] | None) -> SourceHash:
        """Return an object that hashes all bytes that the rows of *piece* depend on.

        By default, it covers the bytes from the start of the slice to the last one that was read. If
        `read` reads others, such as a header line, the hash is empty, and a touched file counts as
        changed, unless the format overrides this method and `has_same_bytes`.
        """
        return ReadHash(piece.start if piece.slicing is Slicing.BYTES else 0)

    def has_same_bytes(
        self, file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        """Return whether *file* still has the bytes of *piece*, whose hash is *hashed*."""
        return has_same_extent(
            file, piece.start if piece.slicing is Slicing.BYTES else 0, hashed=hashed
        )

    @abstractmethod
    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        """Return a writer of one part to *file*, which takes bytes front to back.

        Args:
            file: The file of the part.
            compression: One of `compressions`.
            settle: For a format with `keeps_schema`: call it before the first rows are written, and
                whenever rows add to the schema.
            restart: For a format with `keeps_schema`: call it to write all rows so far again.
        """

    def rows_in_part(self, file: BinaryIO) -> int | None:
        """Return the row count that a finished part records, read back; None if it records none."""
        return None

    @abstractmethod
    def second_reader(self) -> RecordReader | TableReader:
        """Return a reader for `verify` that shares no code with `read`, `cut` and `writer`."""

    def part_reader(
        self, *, types: Callable[[], pa.Schema | None], compression: str
    ) -> RecordReader | TableReader:
        """Return the second reader of parts; by default, the one of source files.

        Args:
            types: Returns the types of the columns that the parts agree on, for a format whose files do
                not record them; None if no rows have been written yet.
            compression: The compression of the parts.
        """
        return self.second_reader()


class RowFormat(Format):
    """A format that stores rows one after the other, each with its own keys, such as JSON lines."""

    keeps_schema = False

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return the bytes of *rows*. Unless `writer` is overridden, a part is these bytes, joined.

        Reading them back must give every value unchanged, with its type.

        Raises:
            ValueError: The format cannot hold a row exactly. Only that row fails.
        """

    def encode_table(self, table: pa.Table) -> bytes | None:
        """Return the bytes that `encode` returns for the rows of *table*; None to let it do so.

        For a format that writes tables faster than rows. What it cannot write exactly is left to
        `encode`, which refuses a row and no others.
        """
        return None

    def in_part(self, rows: bytes) -> bytes:
        """Return what a part has of *rows*, which `encode` returned: all of it, unless files are published."""
        return rows

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        return RowPart(file, compression=compression)

    @abstractmethod
    def second_reader(self) -> RecordReader:
        """Return a reader for `verify` that shares no code with the rest of the format."""


class TableFormat(Format):
    """A format of columns with types: its parts agree on a schema, and `append` takes tables."""

    keeps_schema = True

    def check(self, table: pa.Table) -> None:
        """Check that the format can hold the values of *table*, rows for a part.

        Raises:
            ValueError: It cannot. Only the rows at fault fail.
        """


class SourceOnly:
    """Mixed into a format, before `RowFormat` or `TableFormat`, that sinks do not take."""

    compressions: ClassVar[tuple[str, ...]] = ()
    written_as: ClassVar[str] = "jsonl"

    def encode(self, rows: Sequence[Row]) -> bytes:
        raise NotImplementedError(f"{type(self).__name__} is read, not written")

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        raise NotImplementedError(f"{type(self).__name__} is read, not written")


class SecondReader(ABC):
    """Reads files of a format for `verify`, as a second opinion. One serves all threads of a check.

    For a damaged file, the methods raise an OSError, a ValueError or an error of pyarrow's.

    Attributes:
        reads_in_order: Whether `count_part` reads front to back and never seeks: a part is then
            hashed and counted in one pass.
    """

    reads_in_order: ClassVar[bool] = False

    @abstractmethod
    def count_part(self, file: Any, *, compression: str) -> int:
        """Return the row count of a part, read to its end and decoded, in bounded memory."""

    @abstractmethod
    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        """Return the row count of *piece*, bad rows included, or of the rows *after* it."""


class RecordReader(SecondReader):
    """The second reader of a `RowFormat`."""

    @abstractmethod
    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        """Yield the records of *piece*; with *wanted*, at least the records at these positions."""

    @abstractmethod
    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        """Yield the records of a part."""

    @abstractmethod
    def row_of(self, record: bytes) -> Row:
        """Return the row that a record holds.

        Raises:
            ValueError: The record holds no row.
        """

    def types_of(self, record: bytes) -> pa.Schema | None:
        """Return the types of the row in a *record* and its neighbours; None if its values show them."""
        return None

    def count_part(self, file: Any, *, compression: str) -> int:
        return sum(map(len, self.part_records(file, compression=compression)))

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        if after:
            if piece.slicing is not Slicing.BYTES:
                return 0
            piece = replace(piece, start=piece.stop, stop=piece.size)
        with opened() as file:
            records = self.records(file, piece, wanted=None, compression=compression)
            return sum(map(len, records))


class TableReader(SecondReader):
    """The second reader of a `TableFormat`."""

    @abstractmethod
    def tables(
        self,
        file: Any,
        piece: Slice | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows as tables, each with the number of its first row in the file.

        Args:
            file: Open for reading and seeking.
            piece: The slice of the file to read; None for a part, which is read as a whole.
            wanted: Numbers of the rows to yield instead of those of *piece*; their neighbours may come
                with them.
            columns: The columns to decode, if the file has them; None for all.
        """
