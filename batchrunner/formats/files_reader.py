"""Reads whole files, one row each."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import pyarrow as pa

from batchrunner.errors import ShardFailedError
from batchrunner.formats.chunk import (
    MAX_RAW_BYTES,
    MAX_ROW_BYTES,
    BadRow,
    Position,
    Row,
    Segment,
    Shape,
)
from batchrunner.formats.partitions import Partition, add_to_rows, wanted
from batchrunner.shard import Slice

_TYPES = {
    "path": pa.string(),
    "size": pa.int64(),
    "bytes": pa.binary(),
    "modified": pa.timestamp("us", tz="UTC"),
}
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_BESIDE_BYTES = 256
"""About what a row takes beside the bytes of its file."""


@dataclass(frozen=True, slots=True)
class FileChunk:
    """One file: a row, or a bad one. A table is only made where one is asked for.

    Attributes:
        content: The row, if it can be read. Its values cannot be changed: copies of the dict are enough.
        bad: The row, if it cannot be read.
    """

    content: tuple[Row, ...]
    bad: tuple[BadRow, ...] = ()

    @property
    def types(self) -> pa.Schema:
        return _schema(tuple(self.content[0])) if self.content else _schema(())

    @property
    def nbytes(self) -> int:
        return sum(_BESIDE_BYTES + len(row.get("bytes", b"")) for row in self.content)

    def __len__(self) -> int:
        return len(self.content)

    def rows(self, start: int, stop: int) -> list[Row]:
        return list(map(dict, self.content[start:stop]))

    reread = rows

    def segments(self) -> Sequence[Segment]:
        return [Segment(0, 1, Shape(self.types))] if self.content else []

    def table(self, start: int, stop: int) -> pa.Table:
        schema, rows = self.types, self.content[start:stop]
        arrays = [pa.array([row[f.name] for row in rows], f.type) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def positions(self) -> Sequence[int]:
        return [0] * len(self.content)

    def locate(self, index: int) -> Position:
        return _position(self.content[index])


@lru_cache(maxsize=64)
def _schema(names: tuple[str, ...]) -> pa.Schema:
    """Return the types of the columns *names*; those of folders are text."""
    return pa.schema([(name, _TYPES.get(name, pa.string())) for name in names])


def read_file(
    file: BinaryIO, piece: Slice, *, columns: tuple[str, ...] | None, partition: Partition
) -> Iterator[FileChunk]:
    """Yield the row of the file of *piece*. Reads *file* only if its bytes are among *columns*.

    A file of more than `MAX_ROW_BYTES` is a bad row if its bytes are to be read.

    Raises:
        ShardFailedError: There is no column of a name in *columns*; the file is shorter than listed.
    """
    partition = wanted(partition, columns)
    _check_columns(columns, partition)
    names = [name for name in _TYPES if columns is None or name in columns]
    row: Row = {"path": piece.uri, "size": piece.size, "modified": time_of(piece)}
    if "bytes" in names and piece.size > MAX_ROW_BYTES:
        yield FileChunk((), (BadRow(_position(row), _too_large(piece.size)),))
        return
    if "bytes" in names:
        row["bytes"] = _content(file, piece)
    row = {name: row[name] for name in names}
    faults = add_to_rows([row], partition)
    yield FileChunk((), (BadRow(_position(row), faults[0]),)) if faults else FileChunk((row,))


def _check_columns(columns: tuple[str, ...] | None, partition: Partition) -> None:
    have = {*_TYPES, *(name for name, _ in partition)}
    missing = [name for name in columns or () if name not in have]
    if missing:
        raise ShardFailedError(
            f"no column {missing[0]!r}: a file has {', '.join(_TYPES)}; correct source.columns"
        )


def _content(file: BinaryIO, piece: Slice) -> bytes:
    # One byte more: a read that reaches the end of a file has the storage look whether it changed.
    data = file.read(piece.size + 1)
    if len(data) != piece.size:
        raise ShardFailedError(
            f"{piece.uri} has {len(data):,} bytes and was listed with {piece.size:,}; run again, which "
            "lists anew"
        )
    return data


def time_of(piece: Slice) -> dt.datetime | None:
    """Return when the file of *piece* was last written; None if that is not known."""
    if piece.modified is None:
        return None
    return _EPOCH + dt.timedelta(microseconds=piece.modified)


def _position(row: Row) -> Position:
    """Return the position of *row*, which shows all but its bytes: the file has them."""
    said = {name: value for name, value in row.items() if name != "bytes"}
    return Position("row", 0, json.dumps(said, default=str).encode()[:MAX_RAW_BYTES])


def _too_large(size: int) -> str:
    return (
        f"the file has {size:,} bytes; at most {MAX_ROW_BYTES:,} are read into a row: leave `bytes` out "
        "with source.columns, and open `path` in the capability"
    )
