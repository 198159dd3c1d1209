"""What batchrunner asks of a file format: cut it, read it, write it, and read it again for `verify`.

A new format is one subclass of `RowFormat` or `TableFormat` and one line in `registry.py`, or one
call of `register` from outside; the suite in `batchrunner/testing/formats_contract.py` holds it to
what is promised here. Importing the module of a named format must be cheap, since `batchrunner
validate` asks for its suffixes: a large library belongs inside of the methods. An exception in
`encode`, or in parsing a record, costs its row; in `read` or the writer, its shard; in `cut`, the run.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, Protocol

from batchrunner.formats.chunk import Chunk, Row
from batchrunner.formats.compression import RowPart
from batchrunner.formats.hashing import ReadHash, SourceHash, has_same_extent
from batchrunner.shard import Shard, Slicing

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.formats.partitions import Partition

Opener = Callable[[], BinaryIO]
"""Opens a source file, as it was listed, for reading and seeking."""

Settle = Callable[["pa.Schema"], "pa.Schema"]
"""Given the schema of a part's own rows, returns the schema to write."""

Restart = Callable[[], tuple[BinaryIO, io.RawIOBase]]
"""Returns what is written so far, to read, and a new file to write to in its place."""

Records = list[tuple[int, bytes]]
"""Rows as they stand in a file, each with its position."""


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


class PartWriter(Protocol):
    """Turns what a capability returned, made ready for the sink, into the bytes of one part."""

    def append(self, rows: Any) -> None:
        """Add rows: bytes from `RowFormat.encode`, or a table. They may be held back."""

    def close(self) -> None:
        """Write all that is still held. The file itself is left open."""


class Format(ABC):
    """One format of files. Stateless: one instance serves all threads of a process.

    Attributes:
        suffixes: Ends of file names, such as ".jsonl"; parts get the first.
        outer: Compressions that may stand around a whole file, of "gz" and "zst"; it is then called
            ".jsonl.gz". `read` and `cut` undo them.
        compressions: Values of `sink.compression` that the format takes.
        default_compression: What a part gets when the spec says nothing.
        has_row_groups: Whether `source.shard.row_groups` means something.
        reads_to_cut: Whether `cut` opens the file also when it is not asked to count rows: the driver
            then cuts many files at a time.
        keeps_schema: Whether a file says the types of its columns, so that all parts must agree.
    """

    suffixes: ClassVar[tuple[str, ...]]
    outer: ClassVar[tuple[str, ...]] = ()
    compressions: ClassVar[tuple[str, ...]] = ("none",)
    default_compression: ClassVar[str] = "none"
    has_row_groups: ClassVar[bool] = False
    reads_to_cut: ClassVar[bool] = True
    keeps_schema: ClassVar[bool]

    @abstractmethod
    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Slice]:
        """Cut a file of *size* bytes, more than 0, into slices.

        In order, from 0 on, without gaps and without overlap: every row lies in exactly one slice.
        A header line is of the first one. With a *limit*, the slices hold the first *limit* rows,
        which is at least 1, and each knows its rows. A damaged file is one slice: the worker that
        reads it reports why, and it costs its shard, not the plan. May be called in several threads.
        """

    @abstractmethod
    def read(
        self,
        file: BinaryIO,
        shard: Shard,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        """Yield the rows of *shard* in file order, in bounded memory.

        A row that cannot be read is a `BadRow` of its chunk and costs nothing else. The same slice
        gives the same rows at the same positions, always.

        Args:
            file: The whole file, open for reading and seeking.
            shard: Which of its rows.
            compression: Around the whole file, or None.
            columns: Those to keep, or None for all.
            partition: Columns that the folders of the file name, to be added to each row.

        Raises:
            ShardFailedError: The file is damaged or cut short. Rows before it may have been yielded.
            StorageError: As the storage raised it: another worker may succeed.
        """

    @abstractmethod
    def span(self, shard: Shard, positions: Collection[int], *, compression: str | None) -> Shard:
        """Return a slice of the file of *shard* that holds the rows at these *positions*.

        It may hold more. `retry --rows` reads it, and keeps the rows at the positions.
        """

    def source_hash(self, shard: Shard, *, columns: Sequence[str] | None) -> SourceHash:
        """Return what takes the hash of all bytes that the rows of *shard* depend on.

        By default, of those from the first one of the slice to the last one that was read. If `read`
        reads others, such as a header line, it is empty, and a touched file counts as changed, unless
        the format overrides this and `has_same_bytes`.
        """
        return ReadHash(shard.start if shard.slicing is Slicing.BYTES else 0)

    def has_same_bytes(
        self, file: BinaryIO, shard: Shard, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        """Return whether *file* still has the bytes whose hash was *hashed* when *shard* was read."""
        return has_same_extent(
            file, shard.start if shard.slicing is Slicing.BYTES else 0, hashed=hashed
        )

    @abstractmethod
    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        """Return a writer of one part to *file*, which takes bytes front to back.

        Args:
            file: Where to.
            compression: One of `compressions`.
            settle: Where a schema is kept: to be called before the first rows are written, and
                whenever rows add to the schema.
            restart: Where a schema is kept: to be called when the rows so far must be written again.
        """

    def rows_in_part(self, file: BinaryIO) -> int | None:
        """Return how many rows a finished part says it has, read back; None where it does not say."""
        return None

    @abstractmethod
    def second_reader(self) -> RecordReader | TableReader:
        """Return a reader for `verify` that shares no code with `read`, `cut` and `writer`."""


class RowFormat(Format):
    """A format of rows one after the other, each as it is: files of objects, such as JSON lines."""

    keeps_schema = False

    @abstractmethod
    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return the bytes of *rows*; a part is those of all its batches, or what `writer` makes.

        Every value must come back as it was, in value and type.

        Raises:
            ValueError: The format cannot hold a row exactly. It costs the row.
        """

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

    @abstractmethod
    def second_reader(self) -> TableReader:
        """Return a reader for `verify` that shares no code with the rest of the format."""


class SecondReader(ABC):
    """Reads files of a format for `verify`: a second opinion. One serves all threads of a check.

    What a file that is damaged raises is an OSError, a ValueError or an error of pyarrow's.

    Attributes:
        reads_in_order: Whether `count_part` reads front to back and never seeks: a part is then
            hashed and counted in one pass.
    """

    reads_in_order: ClassVar[bool] = False

    @abstractmethod
    def count_part(self, file: Any, *, compression: str) -> int:
        """Return the rows of a part, every one of them decoded, in bounded memory."""

    @abstractmethod
    def count_rows(
        self, shard: Shard, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        """Return the rows of *shard*, readable or not; or, *after*, those of its file behind it."""


class RecordReader(SecondReader):
    """The second reader of a `RowFormat`."""

    @abstractmethod
    def records(
        self, file: Any, shard: Shard, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        """Yield the records of *shard*, or, of its file, at least those at the *wanted* positions."""

    @abstractmethod
    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        """Yield the records of a part."""

    @abstractmethod
    def row_of(self, record: bytes) -> Row:
        """Return the row that a record holds.

        Raises:
            ValueError: It holds none.
        """

    def count_part(self, file: Any, *, compression: str) -> int:
        return sum(map(len, self.part_records(file, compression=compression)))

    def count_rows(
        self, shard: Shard, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        if after:
            if shard.slicing is not Slicing.BYTES:
                return 0
            shard = Shard(
                shard.id, shard.uri, shard.slicing, shard.stop, shard.size, shard.size, ""
            )
        with opened() as file:
            records = self.records(file, shard, wanted=None, compression=compression)
            return sum(map(len, records))


class TableReader(SecondReader):
    """The second reader of a `TableFormat`."""

    @abstractmethod
    def tables(
        self,
        file: Any,
        shard: Shard | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows as tables, each with the number of its first row in the file.

        Args:
            file: Open for reading and seeking.
            shard: Which of its rows; None for a part, all of which is read.
            wanted: Row numbers, whatever *shard* says; their neighbours may come with them.
            columns: Those to decode, of those that the file has; by default, all.
        """
