"""Reads the shards of a group as one ordered stream of chunks; of dead letters, only their rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import BinaryIO

from batchrunner.errors import (
    BatchRunnerError,
    ObjectChangedError,
    ShardFailedError,
    StorageError,
)
from batchrunner.formats.chunk import Chunk
from batchrunner.formats.format_error import blamed
from batchrunner.formats.hashing import SourceHash
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Shard, Slice, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, is_path, locate
from batchrunner.storage.advice import advise
from batchrunner.user_code import traceback_of
from batchrunner.worker.joining import JOINED_BYTES
from batchrunner.worker.picking import picked
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.steps import Event

PositionsToRetry = Callable[[Shard, int], Mapping[int, frozenset[int]]]
"""Given a shard of dead letters and the shard that they are of, returns the positions of the rows to
retry, by the number of their slice."""


def read_shards(
    shards: Iterable[Shard],
    source: SourceSpec,
    *,
    to_retry: PositionsToRetry,
    by_columns: bool = False,
) -> Iterator[Event]:
    """Yield all events of the first shard, in the order of its rows, then those of the next one.

    With *by_columns*, the chunks are to be asked for tables: it decides the time, not the rows. A
    shard is taken from *shards* when its reading begins. Never raises for a shard that cannot be read:
    its last event has the failure.
    """
    for shard in shards:
        hashes: list[str] = []
        at, has_several = shard.first, len(shard.slices) > 1
        try:
            for number, at, wanted in _to_read(shard, to_retry):
                hashed = _hash(at, source)
                # Of dead letters, a chunk has few rows, and tables of all of its file's.
                small = has_several and wanted is None and at.weight < JOINED_BYTES
                columns = by_columns and not small
                with closing(_chunks(at, source, wanted, hashed, by_columns=columns)) as chunks:
                    yield from (Event(shard, number, c, is_small=small) for c in chunks)
                hashes.append(hashed.text if hashed else "")
        except Exception as error:  # noqa: BLE001 - a file may hold anything: it fails its shard
            yield Event(shard, failure=_failure(error, shard, at, source))
        else:
            yield Event(shard, source_hash=" ".join(hashes) if any(hashes) else "")


def _to_read(
    shard: Shard, to_retry: PositionsToRetry
) -> Iterator[tuple[int, Slice, frozenset[int] | None]]:
    """Yield the number of each slice of *shard* to read, and the positions to read; None for all."""
    origin = shard.retries
    wanted = None if origin is None else to_retry(shard, origin)
    for number, piece in enumerate(shard.slices):
        # No position: no row of that slice failed, perhaps since the first shard was made again.
        if wanted is None or number in wanted:
            yield number, piece, None if wanted is None else wanted[number]


def _hash(piece: Slice, source: SourceSpec) -> SourceHash | None:
    """Return an object that hashes *piece* while it is read; None if no hash is needed.

    Only files on a disk need one: a file replaced by one of the same size differs only in its time,
    while an ETag depends on the bytes. Dead letters are covered by the hash of the shard they come
    from.
    """
    kind = source.kind_of(piece.uri)
    if kind is None or piece.slicing is Slicing.DEAD_LETTERS or not is_path(piece.uri):
        return None
    return kind.reader.source_hash(piece, columns=source.columns)


def _chunks(
    piece: Slice,
    source: SourceSpec,
    wanted: frozenset[int] | None,
    hashed: SourceHash | None,
    *,
    by_columns: bool,
) -> Generator[Chunk]:
    storage, key = locate(piece.uri, storage_options=source.storage_options)
    kind = source.kind_of(piece.uri)
    if kind is None:
        raise ShardFailedError(f"{piece.uri}: its name does not say the format; give source.format")
    # Opened with the planned identity: a file that changed since, or changes now, fails its shard.
    with storage.open(Entry(key, piece.size, piece.identity)) as file:
        if piece.slicing is Slicing.BYTES:
            advise(file, stop=piece.stop)
        if wanted is None:
            read = hashed.over(file) if hashed else file
            yield from _read(read, piece, kind, source, by_columns=by_columns)
            if hashed:  # before the file is closed: a file opened later might be another one
                hashed.finish(file)
        else:
            span = kind.reader.span(piece, wanted, compression=kind.compression)
            chunks = _read(file, span, kind, source, by_columns=by_columns)
            yield from picked(chunks, wanted, piece=piece)


def _read(
    file: BinaryIO, piece: Slice, kind: FileKind, source: SourceSpec, *, by_columns: bool
) -> Iterator[Chunk]:
    hive = source.partitioning == "hive"
    partition = partition_columns(piece.uri, source.uris) if hive else ()
    read = kind.reader.read_by_columns if by_columns else kind.reader.read
    return read(
        file, piece, compression=kind.compression, columns=source.columns, partition=partition
    )


def _failure(error: Exception, shard: Shard, at: Slice, source: SourceSpec) -> Failure:
    """Return why *shard* fails with *error*, which was raised in its slice *at*."""
    if not isinstance(error, BatchRunnerError):
        kind = source.kind_of(at.uri)
        where = f"{shard}: " if at is shard.first else f"{shard}: {at}: "
        reason = f"{where}{blamed(error, kind.format if kind else '?')}"
        return Failure(Cause.INPUT, reason, traceback_of(error))
    # Storage may recover, but an object that changed stays changed: another attempt would not help.
    by_storage = isinstance(error, StorageError) and not isinstance(error, ObjectChangedError)
    return Failure(Cause.STORAGE if by_storage else Cause.INPUT, str(error))
