"""Reads the lines of text files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row, Segment, Shape
from batchrunner.formats.compression import open_compressed
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.lines import (
    MAX_LINE_BYTES,
    LineBlock,
    first_rows,
    mark_length,
    read_lines,
)
from batchrunner.formats.partitions import Partition, add_to_rows, add_to_table, wanted
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"
Columns = tuple[str, ...] | None


@dataclass(frozen=True)
class TextChunk:
    """The rows of a block of lines.

    Attributes:
        lines: The lines of the rows, as the file has them, without the newline.
        texts: What the rows have in the column `text`.
        starts: The offset of each line in the uncompressed file.
        has_text: Whether the rows have the column `text`.
        partition: Columns that the folders of the file name; each row has them.
        bad: The lines that are no rows.
    """

    lines: Sequence[bytes]
    texts: Sequence[str]
    starts: Sequence[int]
    has_text: bool = True
    partition: Partition = ()
    bad: tuple[BadRow, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.lines))

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def types(self) -> pa.Schema:
        import pyarrow as pa

        names = dict.fromkeys([TEXT] * self.has_text + [name for name, _ in self.partition])
        return pa.schema([(name, pa.string()) for name in names])

    def rows(self, start: int, stop: int) -> list[Row]:
        some = self.texts[start:stop]
        rows: list[Row] = [{TEXT: text} for text in some] if self.has_text else [{} for _ in some]
        add_to_rows(rows, self.partition)
        return rows

    reread = rows

    def segments(self) -> tuple[Segment, ...]:
        return (Segment(0, len(self), Shape(self.types)),)

    def table(self, start: int, stop: int) -> pa.Table:
        import pyarrow as pa

        table = pa.table({TEXT: pa.array(self.texts[start:stop], pa.string())})
        return add_to_table(table, self.partition).select(self.types.names)

    def positions(self) -> Sequence[int]:
        return self.starts

    def locate(self, index: int) -> Position:
        return Position("byte", self.starts[index], self.lines[index][:MAX_RAW_BYTES])


def read_text(
    file: BinaryIO,
    piece: Slice,
    *,
    compression: str | None,
    columns: Columns,
    partition: Partition,
) -> Iterator[TextChunk]:
    """Yield the rows of *piece*, about a megabyte of lines at a time, in file order.

    Raises:
        ShardFailedError: The compressed file is damaged or cut short, or *columns* names a column that
            is neither `text` nor one of *partition*.
    """
    _check_columns(columns, partition, piece.uri)
    if piece.slicing is Slicing.BYTES:
        file.seek(max(piece.start - 1, 0))
        blocks = read_lines(file, start=piece.start, stop=piece.stop)
    else:
        blocks = read_lines(open_compressed(file, compression))
    if piece.slicing is Slicing.HEAD:
        blocks = first_rows(blocks, rows=piece.stop, blanks=True)
    try:
        for block in blocks:
            yield _chunk(block, columns, wanted(partition, columns))
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{piece.uri} cannot be uncompressed: {error}; {MEND}") from error


def _check_columns(columns: Columns, partition: Partition, uri: str) -> None:
    known = {TEXT, *(name for name, _ in partition)}
    missing = [name for name in columns or () if name not in known]
    if missing:
        raise ShardFailedError(
            f"no column {missing[0]!r} in {uri}: a file of text has one column, `{TEXT}`; correct "
            "source.columns"
        )


def _chunk(block: LineBlock, columns: Columns, partition: Partition) -> TextChunk:
    mark = mark_length(block)
    lines = block.data[mark:].split(b"\n")
    is_last_ended = not lines[-1]
    if is_last_ended:
        lines.pop()
    begin = block.offset + mark
    starts = list(accumulate((len(line) + 1 for line in lines[:-1]), initial=begin))[: len(lines)]
    texts, faults = _texts(lines, is_last_ended=is_last_ended, overlong=block.overlong - mark)
    faults |= _contradictions(texts, partition)
    bad = [
        BadRow(Position("byte", starts[index], lines[index][:MAX_RAW_BYTES]), why)
        for index, why in sorted(faults.items())
    ]
    good = [index for index in range(len(lines)) if index not in faults]
    if bad:
        lines, texts = [lines[i] for i in good], [texts[i] for i in good]
        starts = [starts[i] for i in good]
    has_text = columns is None or TEXT in columns
    return TextChunk(lines, texts, starts, has_text, partition, tuple(bad))


def _texts(
    lines: Sequence[bytes], *, is_last_ended: bool, overlong: int
) -> tuple[list[str], dict[int, str]]:
    """Return the text of each line, and by index why a line has none."""
    if overlong > 0:
        return [""], {0: _too_long(overlong)}
    ended = [line.removesuffix(b"\r") for line in lines]
    if lines and not is_last_ended:
        ended[-1] = lines[-1]  # without a newline behind it, it is text
    if max(map(len, lines), default=0) <= MAX_LINE_BYTES:
        try:
            return b"\n".join(ended).decode().split("\n") if ended else [], {}
        except UnicodeDecodeError:
            pass
    return _texts_one_by_one(ended)


def _texts_one_by_one(lines: Sequence[bytes]) -> tuple[list[str], dict[int, str]]:
    texts, faults = [""] * len(lines), {}
    for index, line in enumerate(lines):
        try:
            texts[index] = line.decode()
        except UnicodeDecodeError as error:
            faults[index] = f"it is no UTF-8: {error.reason} at byte {error.start:,} of the line"
        if len(line) > MAX_LINE_BYTES:
            faults[index] = _too_long(len(line))
    return texts, faults


def _too_long(length: int) -> str:
    return f"the line has {length:,} bytes; at most {MAX_LINE_BYTES:,} are read: split it"


def _contradictions(texts: Sequence[str], partition: Partition) -> dict[int, str]:
    if not any(name == TEXT for name, _ in partition):
        return {}
    return add_to_rows([{TEXT: text} for text in texts], partition)
