"""CSV and TSV: a record a row, below a header line."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from batchrunner.formats.chunk import Chunk
from batchrunner.formats.compression import OUTER
from batchrunner.formats.contract import (
    Cut,
    Opener,
    PartWriter,
    RecordReader,
    Restart,
    Settle,
    Sharding,
    TableFormat,
    TableReader,
)
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.hashing import HashOfReads, SourceHash
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    import pyarrow as pa


class Csv(TableFormat):
    r"""Comma-separated values in UTF-8. A row's position is the offset of its record.

    A record ends at `\n` or `\r\n` outside of quotes. Values are strings, or of the types of
    `source.schema`. A field that is empty is null, one of two quotes is an empty string.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    outer = OUTER
    compressions = ("none", "gz", "zst")
    gives_way = True
    delimiter: ClassVar[str] = ","

    def __init__(
        self,
        *,
        delimiter: str | None = None,
        quote: str | None = '"',
        names: Sequence[str] | None = None,
        nulls: Sequence[str] = ("",),
        schema: Mapping[str, str] | None = None,
    ) -> None:
        """Make a format; parts are written in that of the defaults.

        Args:
            delimiter: The character between fields.
            quote: The character around a field that may hold any other; None if there is none.
            names: The names of the columns of files without a header line.
            nulls: The texts that stand for null where no quotes are around them.
            schema: The types of columns; those without one are strings.

        Raises:
            ValueError: An argument is not possible.
        """
        options = {"quote": quote, "names": names, "nulls": nulls, "schema": schema}
        self.dialect = Dialect.checked({"delimiter": delimiter or self.delimiter, **options})

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        """Cut at ends of records, for which the whole file is read, unless it becomes one slice."""
        from batchrunner.formats.csv_cuts import FileRows, cut

        fits = sharding.unit == "bytes" and size <= sharding.count * 1.5
        if limit is None and (compression or fits or sharding.unit == "files"):
            slicing = Slicing.FILE if compression else Slicing.BYTES
            return [Cut(slicing, 0, size, None, size)]
        rows = FileRows(self.dialect, compression, opened)
        return cut(rows, size, sharding=sharding, limit=limit)

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.csv_reader import CsvReader

        reader = CsvReader(self.dialect)
        return reader.read(
            file, piece, compression=compression, columns=columns, partition=partition
        )

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        if compression:
            return replace(piece, slicing=Slicing.FILE, start=0, stop=piece.size)
        # A record begins at each position, so the first one says nothing of quotes before it.
        start, stop = min(positions), max(positions) + 1
        return replace(piece, slicing=Slicing.BYTES, start=start, stop=stop)

    def source_hash(self, piece: Slice, *, columns: Sequence[str] | None) -> SourceHash:
        from batchrunner.formats.csv_hash import ExtentReads

        return HashOfReads(ExtentReads)

    def has_same_bytes(
        self, file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        from batchrunner.formats.csv_hash import has_same_reads

        return has_same_reads(file, hashed=hashed)

    def check(self, table: pa.Table) -> None:
        from batchrunner.formats.csv_lengths import check_lengths
        from batchrunner.formats.csv_part import check_columns

        check_columns(table)
        check_lengths(table)

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        from batchrunner.formats.csv_part import CsvPart

        return CsvPart(
            file,
            compression=compression,
            settle=settle,
            restart=restart,
            delimiter=self.delimiter,
        )

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.csv_second_reader import CsvAgain

        types = None
        if self.dialect.schema:
            from batchrunner.formats.declared import declared_schema

            types = declared_schema(dict(self.dialect.schema))
        return CsvAgain(self.dialect, types)

    def part_reader(
        self, *, types: Callable[[], pa.Schema | None], compression: str
    ) -> TableReader:
        from batchrunner.formats.csv_second_reader import CsvPartAgain

        return CsvPartAgain(Dialect(self.delimiter), types(), compression)


class Tsv(Csv):
    """The same with tabs between fields."""

    suffixes = (".tsv", ".tab")
    delimiter = "\t"
