"""Reads whole files, one row each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from batchrunner.errors import ShardFailedError
from batchrunner.formats.chunk import MAX_RAW_BYTES, MAX_ROW_BYTES, BadRow, Position
from batchrunner.formats.parquet_reader import TableChunk
from batchrunner.formats.partitions import Partition, add_to_table, contradicting_rows, wanted
from batchrunner.formats.unsound import shown
from batchrunner.shard import Slice

_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "bytes": pa.binary(),
        "modified": pa.timestamp("us", tz="UTC"),
    }
)


@dataclass(frozen=True, slots=True)
class FileChunk(TableChunk):
    """One file."""

    def locate(self, index: int) -> Position:
        return _position(self.content)


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
    names = [name for name in _SCHEMA.names if columns is None or name in columns]
    if "bytes" in names and piece.size > MAX_ROW_BYTES:
        row = _row(piece, b"", [name for name in names if name != "bytes"])
        yield FileChunk(row.slice(0, 0), (), (BadRow(_position(row), _too_large(piece.size)),))
        return
    row = _row(piece, _content(file, piece) if "bytes" in names else b"", names)
    faults = contradicting_rows(row, partition)
    if faults:
        yield FileChunk(row.slice(0, 0), (), (BadRow(_position(row), faults[0]),))
    else:
        yield FileChunk(add_to_table(row, partition), (0,))


def _check_columns(columns: tuple[str, ...] | None, partition: Partition) -> None:
    have = {*_SCHEMA.names, *(name for name, _ in partition)}
    missing = [name for name in columns or () if name not in have]
    if missing:
        raise ShardFailedError(
            f"no column {missing[0]!r}: a file has {', '.join(_SCHEMA.names)}; correct source.columns"
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


def _row(piece: Slice, content: bytes, names: list[str]) -> pa.Table:
    row: dict[str, Any] = {
        "path": piece.uri,
        "size": piece.size,
        "bytes": content,
        "modified": time_of(piece),
    }
    schema = pa.schema([_SCHEMA.field(name) for name in names])
    return pa.Table.from_pylist([{name: row[name] for name in names}], schema)


def time_of(piece: Slice) -> dt.datetime | None:
    """Return when the file of *piece* was last written; None if that is not known."""
    if piece.modified is None:
        return None
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return epoch + dt.timedelta(microseconds=piece.modified)


def _position(row: pa.Table) -> Position:
    """Return the position of *row*, which shows all but its bytes: the file has them."""
    said = row.drop_columns("bytes") if "bytes" in row.column_names else row
    return Position("row", 0, shown(said)[:MAX_RAW_BYTES])


def _too_large(size: int) -> str:
    return (
        f"the file has {size:,} bytes; at most {MAX_ROW_BYTES:,} are read into a row: leave `bytes` out "
        "with source.columns, and open `path` in the capability"
    )
