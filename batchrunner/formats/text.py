"""Text: one row a line, in the column `text`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from batchrunner.formats.chunk import Row
from batchrunner.formats.compression import RowPart
from batchrunner.formats.contract import PartWriter, RecordReader, Restart, Settle
from batchrunner.formats.line_format import LineFormat
from batchrunner.formats.lines import MARK
from batchrunner.formats.partitions import Partition
from batchrunner.formats.text_reader import TextChunk, read_text
from batchrunner.shard import Slice

_SHOWN = 5


class Text(LineFormat):
    r"""Text in UTF-8. Each line is a row, blank ones too: `{"text": "…"}`, without its end.

    A line ends at `\n` or `\r\n`; the last one may lack its end. A byte order mark at the start of the
    file is no text.
    """

    suffixes = (".txt",)
    gives_way = True
    has_blank_rows = True

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[TextChunk]:
        return read_text(file, piece, compression=compression, columns=columns, partition=partition)

    def encode(self, rows: Sequence[Row]) -> bytes:
        return "".join([f"{_text_of(row)}\n" for row in rows]).encode()

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        return _TextPart(file, compression=compression)

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.text_second_reader import TextAgain

        return TextAgain()


class _TextPart(RowPart):
    """Writes a mark before a first line that begins with one: readers drop the first of a file."""

    _is_begun = False

    def append(self, rows: bytes) -> None:
        if rows and not self._is_begun:
            self._is_begun = True
            rows = MARK + rows if rows.startswith(MARK) else rows
        super().append(rows)


def _text_of(row: Row) -> str:
    """Return the line of *row*.

    Raises:
        ValueError: It has other columns, or its text would come back as other lines.
    """
    if type(row) is not dict or len(row) != 1:
        names = ", ".join(map(repr, list(row)[:_SHOWN])) if type(row) is dict else repr(row)[:80]
        raise ValueError(
            f"a line of text holds one column, and the row has {names or 'none'}: return only "
            '{"text": …}, or use sink.format: jsonl'
        )
    (text,) = row.values()
    if type(text) is not str:
        raise ValueError(
            f"a line of text holds a string, not {type(text).__name__}: return a string, or use "
            "sink.format: jsonl"
        )
    if "\n" in text or text.endswith("\r"):
        raise ValueError(
            "the text has a line end in it, so it would come back as several lines, or without it: "
            "replace it, or use sink.format: jsonl"
        )
    return text
