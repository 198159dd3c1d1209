r"""Reads the lines of a byte range of a file, in bounded memory.

A line belongs to the range that holds its first byte, so ranges that touch share no line and lose
none. Lines end at `\n` and nowhere else.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.formats.compression import ByteStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 16 << 20
HEAD_BYTES = 4096
_END_BYTES = 64 << 10
"""Bytes to read beyond a range at once, for the end of its last line."""
MARK = b"\xef\xbb\xbf"
MARK_BYTES = len(MARK)


def buffered(file: BinaryIO) -> io.BufferedReader:
    """Return *file* with a buffer, for small reads and `readline`. Closing it leaves *file* open.

    Files that a storage opens have no buffer: our own readers read whole blocks.
    """
    return io.BufferedReader(_Unclosed(file), BLOCK_BYTES)


class _Unclosed(io.RawIOBase):
    """Passes reads on to a file, and does not close it: its owner does."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines, one after the other.

    Attributes:
        data: The bytes of the lines; only a file's last line may lack its newline.
        offset: Offset of the first byte in the uncompressed file.
        overlong: 0, or the length of a single line that is too long to be held: *data* has only its
            first `HEAD_BYTES` then.
    """

    data: bytes
    offset: int
    overlong: int = 0


def read_lines(
    stream: ByteStream, *, start: int = 0, stop: int | None = None, max_line: int = MAX_LINE_BYTES
) -> Iterator[LineBlock]:
    """Yield the lines whose first byte lies in [*start*, *stop*), about a block at a time.

    *stream* must be at byte `max(start - 1, 0)`: that byte decides whether a line begins right at
    *start*. Holds at most *max_line* bytes and a block in memory.
    """
    held = b""
    giant: LineBlock | None = None
    for at, piece in _pieces(stream, start=start, stop=stop):
        fresh = 0
        if giant:
            fresh = piece.find(b"\n") + 1
            giant = LineBlock(giant.data, giant.offset, giant.overlong + (fresh or len(piece)))
            if not fresh:
                continue
            yield giant
            giant = None
        data, offset = held + piece[fresh:], at + fresh - len(held)
        end = data.rfind(b"\n") + 1
        if end:
            yield LineBlock(data[:end], offset)
        held = data[end:]
        if len(held) > max_line:
            giant, held = LineBlock(held[:HEAD_BYTES], offset + end, len(held)), b""
    if held:
        yield LineBlock(held, at + len(piece) - len(held))
    if giant:
        yield giant


def _pieces(stream: ByteStream, *, start: int, stop: int | None) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) from the first line start in the range to the first one after it."""
    inside, next_at = start == 0, max(start - 1, 0)
    while block := stream.read(_block_size(next_at, stop)):
        at, next_at = next_at, next_at + len(block)
        if not inside:
            begin = block.find(b"\n") + 1
            # The first line to begin in this range begins here, or after the next block's first
            # byte at the soonest. Without this, a file of one line would be read once a shard.
            if stop is not None and (at + begin if begin else next_at + 1) >= stop:
                return
            if not begin:
                continue
            inside, at, block = True, at + begin, block[begin:]
        end = 0
        if stop is not None and next_at >= stop:
            end = block.find(b"\n", max(stop - 1 - at, 0)) + 1
        yield at, block[:end] if end else block
        if end:
            return


def _block_size(at: int, stop: int | None) -> int:
    """Return how much to read from *at* on: near the end of a range, no more than is needed."""
    left = 0 if stop is None else stop + _END_BYTES - at
    return min(left, BLOCK_BYTES) if left > 0 else BLOCK_BYTES


def first_rows(
    blocks: Iterator[LineBlock], *, rows: int, blanks: bool = False
) -> Iterator[LineBlock]:
    """Yield the lines that hold the first *rows* rows; with *blanks*, blank lines are rows, too."""
    for block in blocks:
        ends = list(islice(row_ends(block, blanks=blanks), rows))
        rows -= len(ends)
        if not rows:
            yield LineBlock(block.data[: ends[-1] - block.offset], block.offset, block.overlong)
            return
        yield block


def mark_length(block: LineBlock) -> int:
    """Return the length of the byte order mark that *block* begins with: 3, or 0 without one."""
    return len(MARK) if block.offset == 0 and block.data.startswith(MARK) else 0


def row_ends(block: LineBlock, *, blanks: bool = False) -> Iterator[int]:
    """Yield the offset after each line of *block* that is not blank, or of all with *blanks*."""
    mark = mark_length(block)
    lines = block.data[mark:].split(b"\n")
    if not lines[-1]:
        lines.pop()
    end = block.offset + mark
    for line in lines:
        end += max(len(line), block.overlong - mark - 1) + 1
        if blanks or line.strip():
            yield end
