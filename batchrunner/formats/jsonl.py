"""JSON lines: one JSON object a line, compressed or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import RecordReader
from batchrunner.formats.json_rows import write_block, write_line
from batchrunner.formats.jsonl_reader import JsonlChunk, read_jsonl
from batchrunner.formats.line_format import LineFormat
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice


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
    ) -> Iterator[JsonlChunk]:
        return read_jsonl(
            file, piece, compression=compression, columns=columns, partition=partition
        )

    def encode(self, rows: Sequence[Row]) -> bytes:
        block = write_block(rows) if set(map(type, rows)) == {dict} else None
        return b"".join(map(write_line, rows)) if block is None else block

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.jsonl_second_reader import LineReader

        return LineReader()
