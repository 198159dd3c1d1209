"""Parts of a sink of files: a JSON line for each file, with its path, size, SHA-256 and other columns."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import orjson

from batchrunner.formats.chunk import MAX_ROW_BYTES, Row
from batchrunner.formats.file_paths import checked_path
from batchrunner.formats.json_rows import write_line
from batchrunner.formats.jsonl import JsonLines

if TYPE_CHECKING:
    import pyarrow as pa

_FRAME = struct.Struct(">QQ")


class Listed(NamedTuple):
    """A file that a part lists.

    Attributes:
        path: Its key in the sink.
        size: Bytes.
        sha256: SHA-256 of these, in hex.
    """

    path: str
    size: int
    sha256: str


class Listing(JsonLines):
    """The parts of `sink.format: files`: JSON lines, beside which each row's `bytes` are published.

    A row has `path` and `bytes`. Its line has `path`, `size`, `sha256` and the columns that are left.
    """

    compressions: ClassVar[tuple[str, ...]] = ("none",)
    publishes_files = True

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a frame for each row: its line and its file. `frames` takes them apart."""
        return b"".join(map(_framed, rows))

    def encode_table(self, table: pa.Table) -> bytes | None:
        return None

    def in_part(self, rows: bytes) -> bytes:
        return b"".join(line for line, _ in frames(rows))


def _framed(row: Row) -> bytes:
    if not isinstance(row, dict):
        raise ValueError(f"a row must be a dict, not {type(row).__name__}")  # noqa: TRY004 - bad data
    path, data = checked_path(row.get("path")), _data(row)
    facts = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name, value in facts.items():
        if name in row and row[name] != value:
            raise ValueError(
                f"the column {name!r} of a sink of files is that of the file, {value!r}; the row of "
                f"{path!r} has {row[name]!r:.80}: leave that column out, or give it another name"
            )
    others = {name: value for name, value in row.items() if name not in ("bytes", *facts)}
    line = write_line({**others, **facts})
    return _FRAME.pack(len(line), len(data)) + line + data


def _data(row: Row) -> bytes:
    data = row.get("bytes")
    if not isinstance(data, bytes):
        raise ValueError(  # noqa: TRY004 - a row that the format cannot hold
            f"a row of a sink of files needs 'bytes', the content of its file; in the row of {row.get('path')!r:.120} "
            f"it is of type {type(data).__name__}: return bytes"
        )
    if len(data) > MAX_ROW_BYTES:
        raise ValueError(
            f"the file {row.get('path')!r:.120} has {len(data):,} bytes; at most {MAX_ROW_BYTES:,} are written"
        )
    return data


def frames(rows: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    """Yield the line and the file of each row in *rows*, which `Listing.encode` returned."""
    view, at = memoryview(rows), 0
    while at < len(view):
        line, data = _FRAME.unpack_from(view, at)
        at += _FRAME.size
        yield view[at : at + line], view[at + line : at + line + data]
        at += line + data


def listed_in(line: bytes | memoryview) -> Listed:
    """Return the file that a *line* of a part lists.

    Raises:
        ValueError: The line lists no file.
    """
    try:
        row: Any = orjson.loads(line)
        listed = Listed(row["path"], row["size"], row["sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("the line lists no file") from error
    if type(listed.size) is not int or not isinstance(listed.sha256, str):
        raise ValueError("the line lists no file")
    checked_path(listed.path)
    return listed
