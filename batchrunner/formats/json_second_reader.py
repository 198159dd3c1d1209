"""Reads JSON files for `verify`, with code that took no part in the run.

Elements are found by a walk over quotes and brackets, and parsed by the standard library.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import RecordReader, Records
from batchrunner.shard import Slice, Slicing

BLOCK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'\\["\\]|["\[\]{},]', re.DOTALL)
_HELD_BYTES, _KEPT_BYTES = 32 << 20, 4096
_SPACE = b" \t\r\n"


class ElementReader(RecordReader):
    """The second reader of JSON."""

    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        if wanted and not compression:
            start, stop = min(wanted), max(wanted) + 1
        elif piece.slicing is Slicing.BYTES:
            start, stop = piece.start, piece.stop
        else:
            start, stop = 0, None
        if start:
            file.seek(start)
        found = _walk(_uncompressed(file, compression), start)
        if piece.slicing is Slicing.HEAD and not wanted:
            return _in_tens(item for _, item in zip(range(piece.stop), found, strict=False))
        return _in_tens(_before(found, stop))

    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        return _in_tens(_walk(_uncompressed(file, compression), 0))

    def row_of(self, record: bytes) -> Row:
        try:
            row = json.loads(record.decode())
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(row, dict):
            raise ValueError(f"it holds a {type(row).__name__}, not an object")  # noqa: TRY004 - bad data
        return row


def _before(found: Iterator[tuple[int, bytes]], stop: int | None) -> Iterator[tuple[int, bytes]]:
    for item in found:
        if stop is not None and item[0] >= stop:
            return
        yield item


def _in_tens(found: Iterator[tuple[int, bytes]]) -> Iterator[Records]:
    """Yield lists of items, short enough for their records to be held."""
    held: Records = []
    size = 0
    for item in found:
        held.append(item)
        size += len(item[1])
        if size >= BLOCK_BYTES or len(held) == 1000:
            yield held
            held, size = [], 0
    if held:
        yield held


def _uncompressed(file: Any, compression: str | None) -> Any:
    if compression == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(file, "zstd")
    openers: dict[str | None, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return openers[compression](file) if compression in openers else file


def _walk(stream: Any, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of each element; of the whole document if the file is no array.

    A text that is too long is cut: the run's reader made it a bad row, and it is no row here either.

    Raises:
        ValueError: The array is not closed.
    """
    blocks, is_empty = _blocks(stream), start == 0
    text, at = next(blocks, b""), start
    if start == 0:
        while not (value := text.removeprefix(_BOM).lstrip(_SPACE)) and (more := next(blocks, b"")):
            text += more
        at = len(text) - len(value)
        if value[:1] != b"[":
            yield 0, _whole(chain([value], blocks))
            return
        text, at = value[1:], at + 1
    for found, element, is_last in _walk_array(chain([text], blocks), at):
        if not (is_last and is_empty and not element):
            yield found, element
        is_empty = False


def _blocks(stream: Any) -> Iterator[bytes]:
    """Yield the rest of *stream* in blocks that end outside an escape, and hold a byte order mark."""
    held = b""
    while block := stream.read(BLOCK_BYTES):
        held += block
        slashes = len(held) - len(held.rstrip(b"\\"))
        if slashes % 2 == 0 and len(held) > len(_BOM):
            yield held
            held = b""
    yield held


def _whole(blocks: Iterator[bytes]) -> bytes:
    text = b""
    for block in blocks:
        text = text + block if len(text) < _HELD_BYTES else text
    return text.strip(_SPACE)


def _walk_array(blocks: Iterator[bytes], at: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield offset and bytes of each element, and whether it is the last, from byte *at* on."""
    walk, held, dropped = _Walk(), b"", 0
    for block in blocks:
        begin = 0
        for end, is_last in walk.ends(block):
            text = held + block[begin:end]
            blank = len(text) - len(text.lstrip(_SPACE))
            yield at + blank, text.strip(_SPACE), is_last
            if is_last:
                return
            at, held, dropped, begin = at + len(text) + dropped + 1, b"", 0, end + 1
        held += block[begin:]
        if len(held) > _HELD_BYTES:
            dropped, held = dropped + len(held) - _KEPT_BYTES, held[:_KEPT_BYTES]
    if held.strip(_SPACE):
        raise ValueError(f"the array is not closed: its element at byte {at:,} does not end")


class _Walk:
    """Walks over the quotes and brackets of an array."""

    def __init__(self) -> None:
        self._depth, self._in_string = 0, False

    def ends(self, block: bytes) -> Iterator[tuple[int, bool]]:
        """Yield where an element ends in *block*, and whether the array ends there."""
        for token in _TOKEN.finditer(block):
            mark = token[0]
            if mark == b'"':
                self._in_string = not self._in_string
            elif self._in_string or len(mark) > 1:
                continue
            elif mark in b"[{":
                self._depth += 1
            elif not self._depth:
                yield token.start(), mark != b","
            elif mark != b",":
                self._depth -= 1
