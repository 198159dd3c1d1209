"""Reads the shards of a group as one ordered stream of chunks; of dead letters, only their rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import BinaryIO

from batchrunner.errors import (
    BatchRunnerError,
    ObjectChangedError,
    ShardFailedError,
    StorageError,
)
from batchrunner.formats.chunk import Chunk
from batchrunner.formats.contract import RowFormat, Sharding
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
from batchrunner.worker.picking import all_with, picked
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.steps import Event
from batchrunner.worker.unreadable import unreadable_slices
from batchrunner.worker.windows import rows_of, windowed

PositionsToRetry = Callable[[Shard, int], Mapping[int, frozenset[int]]]
"""Given a shard of dead letters and the shard that they are of, returns the positions of the rows to
retry, by the number of their slice."""


def read_shards(
    shards: Iterable[Shard],
    source: SourceSpec,
    *,
    to_retry: PositionsToRetry,
    by_columns: bool = False,
    is_ended: Callable[[int], bool] = lambda _: False,
) -> Iterator[Event]:
    """Yield all events of the first shard, in the order of its rows, then those of the next one.

    With *by_columns*, the chunks are to be asked for tables: it decides the time, not the rows. Once
    *is_ended* of a shard's id, its rows are no longer yielded, and only those of the slice that is being
    read are counted, unless planning did. A shard is taken from *shards* when its reading begins. Never
    raises for a shard that cannot be read: its last event has the failure, with all of its slices that
    cannot be read.
    """
    for shard in shards:
        hashes: list[str] = []
        counts: list[int] = []
        number, at = 0, shard.first
        try:
            for number, at, wanted in _to_read(shard, to_retry, source, by_columns=by_columns):
                if is_ended(shard.id):
                    break
                hashed = _hash(at, source)
                small = _is_small(shard, at, source) and (wanted is None or by_columns)
                rows, later = 0, wanted if small else None
                columns, ended = by_columns and not small, partial(is_ended, shard.id)
                way = _Way(source, columns, ended, wanted=wanted, is_whole=small)
                with closing(_chunks(at, way, hashed)) as chunks:
                    for chunk in chunks:
                        rows += rows_of(chunk)
                        if not way.is_ended():
                            yield Event(shard, number, chunk, is_small=small, wanted=later)
                counts.append(rows if at.rows is None else at.rows)
                hashes.append(hashed.text if hashed else "")
        except Exception as error:  # noqa: BLE001 - a file may hold anything: it fails its shard
            failure = _failure(error, shard, at, source)
            read = partial(_read_through, shard, source=source, by_columns=by_columns)
            is_over = is_ended(shard.id)  # what is left of it is read by others
            unreadable = () if is_over else unreadable_slices(shard, number, error, read=read)
            others = f"; {len(unreadable) - 1:,} more files of its shard cannot be read"
            more = others * (len(unreadable) > 1)
            reason = f"{failure.reason}{more}"
            yield Event(shard, failure=replace(failure, reason=reason, unreadable=unreadable))
        else:
            text = " ".join(hashes) if any(hashes) else ""
            yield Event(shard, source_hash=text, counts=tuple(counts))


def _is_small(shard: Shard, piece: Slice, source: SourceSpec) -> bool:
    """Return whether rows of *piece* may be joined with those of the slices beside it."""
    if len(shard.slices) == 1:
        return False
    if piece.slicing is not Slicing.DEAD_LETTERS:
        # A window of a large file is light, but its rows are retried as those of the file are.
        return piece.size < JOINED_BYTES
    kind = source.kind_of(piece.uri)
    return piece.size < JOINED_BYTES and kind is not None and isinstance(kind.reader, RowFormat)


def _read_through(shard: Shard, piece: Slice, *, source: SourceSpec, by_columns: bool) -> None:
    """Read *piece* as for *shard*, and keep nothing of it; raise what reading it raises."""
    way = _Way(source, by_columns and not _is_small(shard, piece, source))
    with closing(_chunks(piece, way, None)) as chunks:
        for _ in chunks:
            pass


def _to_read(
    shard: Shard, to_retry: PositionsToRetry, source: SourceSpec, *, by_columns: bool
) -> Iterator[tuple[int, Slice, frozenset[int] | None]]:
    """Yield the number of each slice of *shard* to read, and the positions to keep; None for all.

    By columns, small slices without a position to keep are among them: a table of the rows to retry
    alone would lack columns that it had among its neighbours, or have them with other types.
    """
    origin = shard.retries
    wanted = None if origin is None else to_retry(shard, origin)
    for number, piece in enumerate(shard.slices):
        # No position: no row of that slice failed, perhaps since the first shard was made again.
        if wanted is None or number in wanted or (by_columns and _is_small(shard, piece, source)):
            yield number, piece, None if wanted is None else wanted.get(number, frozenset())


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


@dataclass(frozen=True, slots=True)
class _Way:
    """How to read slices of a shard.

    Attributes:
        source: The source.
        by_columns: Whether the chunks are to be asked for tables.
        is_ended: Returns whether the shard has ended early.
        wanted: The positions of the rows to retry; None to read all rows.
        is_whole: Whether to read the rows beside those to retry, too.
    """

    source: SourceSpec
    by_columns: bool
    is_ended: Callable[[], bool] = lambda: False
    wanted: frozenset[int] | None = None
    is_whole: bool = False

    def goes_on(self, chunks: Iterator[Chunk], piece: Slice) -> Iterator[Chunk]:
        """Yield *chunks*, unless no row of *piece* is needed any more, nor their number."""
        return takewhile(lambda _: piece.rows is None or not self.is_ended(), chunks)


def _chunks(piece: Slice, way: _Way, hashed: SourceHash | None) -> Generator[Chunk]:
    source, wanted = way.source, way.wanted
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
            yield from way.goes_on(_read(read, piece, kind, way), piece)
            if hashed:  # before the file is closed: a file opened later might be another one
                hashed.finish(file)
        elif way.is_whole:
            chunks = _read(file, _cut_as_one(piece, kind, file), kind, way)
            yield from all_with(chunks, wanted, piece=piece)
        else:
            span = kind.reader.span(piece, wanted, compression=kind.compression)
            yield from picked(_read(file, span, kind, way), wanted, piece=piece)


def _cut_as_one(piece: Slice, kind: FileKind, file: BinaryIO) -> Slice:
    """Return the file of *piece*, which is one of a pack, as its shard had it: as one slice."""
    cuts = kind.reader.cut(
        piece.size,
        compression=kind.compression,
        sharding=Sharding("files", 1),
        limit=None,
        opened=lambda: file,
    )
    [cut] = cuts
    return replace(piece, slicing=cut.slicing, start=cut.start, stop=cut.stop)


def _read(file: BinaryIO, piece: Slice, kind: FileKind, way: _Way) -> Iterator[Chunk]:
    source = way.source
    hive = source.partitioning == "hive"
    partition = partition_columns(piece.uri, source.uris) if hive else ()
    read = kind.reader.read_by_columns if way.by_columns else kind.reader.read
    chunks = read(
        file, piece, compression=kind.compression, columns=source.columns, partition=partition
    )
    if not piece.has_window:
        return chunks
    return windowed(chunks, skip=piece.skip, take=piece.take)


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
