"""Rows counted without the code that read or wrote them: a second opinion."""

from __future__ import annotations

import zlib
from functools import partial
from typing import BinaryIO

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.formats.contract import RecordReader, TableReader
from batchrunner.formats.registry import DEFAULT, FileKind, file_kind, format_named
from batchrunner.shard import Shard
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate


def unreadable() -> tuple[type[Exception], ...]:
    """Return what reading something damaged may raise."""
    import pyarrow as pa

    return (OSError, EOFError, zlib.error, pa.ArrowException, ValueError)


GONE = (ObjectChangedError, ObjectNotFoundError)
"""What says that the file is not the one that was read, so that nothing can be counted."""


class UncountableError(StorageError):
    """The file is the one that was read, and cannot be read now."""


class SourceRows:
    """Counts in the files of *source*. Safe in several threads."""

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._readers: dict[str, RecordReader | TableReader] = {}

    def of(self, shard: Shard) -> int:
        """Return the rows of *shard*, which must not be one of dead letters.

        Raises:
            ObjectChangedError: Its file was written since.
            ObjectNotFoundError: Its file is gone.
            UncountableError: Its file cannot be read.
        """
        return self._count(shard, after=False)

    def after(self, shard: Shard) -> int:
        """Return the rows of the file of *shard* that come after it. Raises as `of` does."""
        return self._count(shard, after=True)

    def _count(self, shard: Shard, *, after: bool) -> int:
        kind = file_kind(shard.uri, format=self._source.format) or FileKind(DEFAULT)
        try:
            return self._reader(kind.format).count_rows(
                shard, partial(self._open, shard), compression=kind.compression, after=after
            )
        except StorageError:
            raise
        except unreadable() as error:
            raise UncountableError(f"{shard.uri} cannot be read: {error}") from error

    def _reader(self, format: str) -> RecordReader | TableReader:  # noqa: A002 - the spec's word
        # One a format: it may remember what it read of a file for the next shard.
        return self._readers.setdefault(format, format_named(format).second_reader())

    def _open(self, shard: Shard) -> BinaryIO:
        storage, key = locate(shard.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, shard.size, shard.identity))
