"""Rows of source files and of parts, read by code that took no part in the run.

Each format has a second reader for this. Whatever the worker's readers believe, `--key` and `--replay`
see what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.formats.contract import RecordReader, Records, TableReader
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import DEFAULT, FileKind, file_kind, format_named
from batchrunner.shard import Shard
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate

if TYPE_CHECKING:
    import pyarrow as pa

Numbers = frozenset[int]
"""Positions of rows in their file: offsets of lines, numbers of Parquet rows."""

Folders = Mapping[str, str | None]
"""Columns that the folders of a file name, such as `date=2026-01-01/`."""


def position_of(dead_letter: bytes) -> int:
    """Return where the row of a dead letter stands."""
    return int(json.loads(dead_letter)["at"])


class SourceReader:
    """Reads what shards were cut from; every file must be as it was when the shard was planned.

    All methods may raise ObjectChangedError or ObjectNotFoundError: the file is not that one.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source

    def of(self, shard: Shard) -> RecordReader | TableReader:
        """Return the second reader of the format that *shard* is in."""
        return format_named(self._kind(shard).format).second_reader()

    def records(
        self, reader: RecordReader, shard: Shard, *, wanted: Numbers | None
    ) -> Iterator[Records]:
        """Yield the records of *shard*; of one of dead letters, those that are *wanted*."""
        if wanted is not None and not wanted:
            return
        compression = self._kind(shard).compression
        with self._open(shard) as file:
            for some in reader.records(file, shard, wanted=wanted, compression=compression):
                yield some if wanted is None else [item for item in some if item[0] in wanted]

    def tables(
        self,
        reader: TableReader,
        shard: Shard,
        *,
        wanted: Numbers | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield the rows of *shard*, each table with the number of its first row in the file.

        Of a shard of dead letters: neighbours of the rows that are *wanted* come with them.
        Of *columns*, those that the file or its folders have.
        """
        if wanted is not None and not wanted:
            return
        folders = self.folders(shard, columns=columns)
        with self._open(shard) as file:
            for first, table in reader.tables(file, shard, wanted=wanted, columns=columns):
                yield first, _only(_with_folders(table, folders), columns)

    def folders(self, shard: Shard, *, columns: Sequence[str] | None) -> Folders:
        """Return what the folders of the file of *shard* say; of *columns*, or all."""
        if self._source.partitioning == "none":
            return {}
        found = partition_columns(shard.uri, self._source.uris)
        return {name: text for name, text in found if columns is None or name in columns}

    def _kind(self, shard: Shard) -> FileKind:
        return file_kind(shard.uri, format=self._source.format) or FileKind(DEFAULT)

    def _open(self, shard: Shard) -> Any:
        storage, key = locate(shard.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, shard.size, shard.identity))


def with_folders(row: dict[str, Any], folders: Folders) -> dict[str, Any]:
    """Return *row* with what the folders of its file say, where it does not say anything itself."""
    said = {name: value for name, value in row.items() if value is not None}
    return {**row, **folders, **said} if folders else row


def _with_folders(table: pa.Table, folders: Folders) -> pa.Table:
    import pyarrow as pa

    for name, value in folders.items():
        text = pa.repeat(pa.scalar(value, pa.string()), len(table))
        if name not in table.column_names:
            table = table.append_column(name, text)
        elif table.column(name).null_count:
            at = table.column_names.index(name)
            table = table.set_column(at, name, text.cast(table.column(name).type))
    return table


def _only(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return *table* without what Arrow takes for a part of the *columns*, or came uncalled for."""
    kept = [name for name in table.column_names if columns is None or name in columns]
    return table.select(kept) if kept else table
