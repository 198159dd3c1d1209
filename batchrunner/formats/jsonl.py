"""JSON lines: one JSON object a line, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.formats.chunk import Chunk, Row
from batchrunner.formats.contract import RecordReader
from batchrunner.formats.json_rows import write_block, write_line
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.line_format import LineFormat
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice

if TYPE_CHECKING:
    import pyarrow as pa


class JsonLines(LineFormat):
    """JSON lines. A blank line is no row."""

    suffixes = (".jsonl", ".ndjson")

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        return read_jsonl(
            file, piece, compression=compression, columns=columns, partition=partition
        )

    def read_by_columns(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.jsonl_tables import read_by_columns

        return read_by_columns(
            file, piece, compression=compression, columns=columns, partition=partition
        )

    def encode(self, rows: Sequence[Row]) -> bytes:
        block = write_block(rows) if set(map(type, rows)) == {dict} else None
        return b"".join(map(write_line, rows)) if block is None else block

    def encode_table(self, table: pa.Table) -> bytes | None:
        from batchrunner.formats.json_columns import write_table

        return write_table(table)

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.jsonl_second_reader import LineReader

        return LineReader()
