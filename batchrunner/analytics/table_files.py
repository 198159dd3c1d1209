"""Parquet files of the tables: writes and reads rows, and detects torn, foreign and later files."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from batchrunner.analytics.layout import FORMAT_VERSION
from batchrunner.analytics.record import Columns, ColumnType
from batchrunner.errors import InvalidRecordError, StorageError, describe
from batchrunner.storage import Entry, Storage

if TYPE_CHECKING:
    import pyarrow as pa


_VERSION_KEY = b"batchrunner.table_format"

_SMALL_BYTES = 64 << 10
_DENSE: dict[str, Any] = {"compression": "zstd"}
_QUICK: dict[str, Any] = {
    "compression": "snappy",
    "use_dictionary": False,
    "write_statistics": False,
}
"""For the few rows of a run. zstd is set up anew for each column, which costs more than the rest of
the write, and as much again when the file is read, and saves no space in so small a file."""


class UnreadableFileError(Exception):
    """A file of a table is torn, foreign or of a later version. The message names it and says why."""


def arrow_schema(columns: Columns) -> pa.Schema:
    """Return *columns* as an Arrow schema."""
    import pyarrow as pa

    types = {
        ColumnType.BOOL: pa.bool_(),
        ColumnType.INT64: pa.int64(),
        ColumnType.DOUBLE: pa.float64(),
        ColumnType.STRING: pa.string(),
        ColumnType.BINARY: pa.binary(),
        ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def table_of_rows(table: str, rows: Sequence[Mapping[str, Any]], *, columns: Columns) -> pa.Table:
    """Return *rows* as an Arrow table.

    Raises:
        InvalidRecordError: A value does not fit its column: values are never rounded or cut.
    """
    import pyarrow as pa

    schema = arrow_schema(columns)
    arrays = []
    for column in schema:
        values = [_aware(row.get(column.name)) for row in rows]
        try:
            arrays.append(pa.array(values, type=column.type))
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            raise InvalidRecordError(
                f"table {table!r}, column {column.name!r}: a value is no {column.type} "
                f"({describe(error)}); convert it, or change the field's type"
            ) from error
    return pa.Table.from_arrays(arrays, schema=schema)


def _aware(value: Any) -> Any:
    """Return a time without a time zone as the same time in UTC, and any other value as it is."""
    if isinstance(value, datetime) and value.utcoffset() is None:
        return value.replace(tzinfo=UTC)
    return value


def to_parquet(rows: pa.Table) -> bytes:
    """Return *rows* as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {_VERSION_KEY: str(FORMAT_VERSION).encode()}
    buffer = io.BytesIO()
    options = _QUICK if rows.nbytes < _SMALL_BYTES else _DENSE
    try:
        pq.write_table(rows.replace_schema_metadata(metadata), buffer, **options)
    except pa.ArrowException as error:
        raise InvalidRecordError(f"the records cannot be written: {describe(error)}") from error
    return buffer.getvalue()


def parse_rows(data: bytes, *, table: pa.Schema, wanted: pa.Schema, place: str) -> pa.Table:
    """Return the rows of the Parquet file *data*; columns that it lacks are NULL.

    Args:
        data: The bytes of the whole file.
        table: The columns of its table.
        wanted: The columns to read.
        place: URI of the file, for error messages.

    Raises:
        UnreadableFileError: The file is torn, foreign, or of a later version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        _check_version(parquet.schema_arrow, place=place)
        _check_columns(parquet.schema_arrow, known=table, place=place)
        # A thread for each tiny column costs more than it saves.
        rows = parquet.read(wanted.names, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(
            f"{place} is torn or no Parquet: {describe(error)}; restore it from a copy"
        ) from error
    return fitted(rows, wanted)


def is_torn(storage: Storage, entry: Entry) -> bool:
    """Return whether the file of *entry* cannot be read to its end as Parquet.

    Raises:
        StorageError: The storage does not return the bytes, so they cannot be checked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with storage.open(entry) as file:
        data = file.read()
    try:
        pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError):
        return True
    return False


def open_parquet(
    storage: Storage, entry: Entry, *, known: pa.Schema | None = None
) -> pa.PythonFile:
    """Open the file of *entry*; the caller closes it.

    Raises:
        UnreadableFileError: It is torn, foreign, or of a later version; or it has a column that is
            not among those *known*.
        StorageError: The storage does not return its bytes.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = f"{storage.uri}/{entry.key}"
    file = pa.PythonFile(SharedFile(storage.open(entry)), mode="r")
    try:
        found = pq.ParquetFile(file).schema_arrow
        _check_version(found, place=place)
        if known is not None:
            _check_columns(found, known=known, place=place)
    except StorageError:  # an OSError too, but of the storage and not of the bytes
        file.close()
        raise
    except (UnreadableFileError, pa.ArrowException, OSError) as error:
        file.close()
        raise UnreadableFileError(f"{place} is torn or foreign: {describe(error)}") from error
    return file


def _check_version(schema: pa.Schema, *, place: str) -> None:
    """Check that *schema* has the format version that this batchrunner reads.

    Raises:
        UnreadableFileError: It has another version, or none.
    """
    version = (schema.metadata or {}).get(_VERSION_KEY)
    if version is None:
        raise UnreadableFileError(
            f"{place} was not written by batchrunner; move it out of the store"
        )
    if version != str(FORMAT_VERSION).encode():
        raise UnreadableFileError(
            f"{place} has format version {version.decode('latin-1')[:20]}, and this batchrunner reads "
            f"{FORMAT_VERSION}: install the version that wrote it"
        )


def _check_columns(found: pa.Schema, *, known: pa.Schema, place: str) -> None:
    """Check that the columns *found* in a file are among those of its table.

    Raises:
        UnreadableFileError: The table lacks one, or has it with another type.
    """
    for column in found:
        index = known.get_field_index(column.name)
        expected = known.field(index).type if index >= 0 else None
        if column.type != expected:
            raise UnreadableFileError(
                f"{place} is foreign: its {column.name!r} is {column.type}, the table's {expected}; move "
                "it out of the store"
            )


def fitted(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return *rows* with the columns of *schema*; those that *rows* lacks are NULL."""
    import pyarrow as pa

    present = dict(zip(rows.column_names, rows.columns, strict=True))
    absent = (pa.nulls(len(rows), column.type) for column in schema if column.name not in present)
    arrays = [present[name] if name in present else next(absent) for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


class SharedFile:
    """A file that Arrow's threads read at once: each has its own position.

    Arrow finds the size by seeking to the end and back, without locking out other scans: with one
    position they would read from the wrong place.

    Args:
        file: A seekable file, which `close` closes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock, self._own = file, threading.Lock(), threading.local()
        self._size = file.seek(0, os.SEEK_END)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def tell(self) -> int:
        """Return this thread's position."""
        return getattr(self._own, "position", 0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move this thread's position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._own.position = start + offset
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes from this thread's position on."""
        with self._lock:
            self._file.seek(self.tell())
            data = self._file.read(size)
        self._own.position = self.tell() + len(data)
        return data

    def close(self) -> None:
        """Close the file, for all threads."""
        self._file.close()
