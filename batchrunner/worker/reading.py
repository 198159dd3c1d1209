"""Reads the shards of a group as one ordered stream; for dead letters, only their rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.errors import (
    BatchRunnerError,
    ObjectChangedError,
    ShardFailedError,
    StorageError,
)
from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment
from batchrunner.formats.format_error import blamed
from batchrunner.formats.hashing import SourceHash
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, is_path, locate
from batchrunner.user_code import traceback_of
from batchrunner.worker.batch import Batch, batches
from batchrunner.worker.receipt import Cause, Failure

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Step:
    """One event in reading a shard: a batch, unreadable rows, or a failure that ends the shard.

    A step with none of the three is the end of the shard, and has the hash of the bytes read, if
    one is needed.
    """

    shard: Shard
    batch: Batch | None = None
    bad: tuple[BadRow, ...] = ()
    failure: Failure | None = None
    source_hash: str = ""

    @property
    def rows(self) -> int:
        """Number of rows of the source in this step, unreadable ones included."""
        return len(self.batch) if self.batch else len(self.bad)

    @property
    def nbytes(self) -> int:
        """About how many bytes of the source this step holds."""
        return self.batch.nbytes if self.batch else 0

    @property
    def is_end(self) -> bool:
        """Whether this step is the end of a shard that was read completely."""
        return self.batch is None and not self.bad and self.failure is None


@dataclass(frozen=True, slots=True)
class Read:
    """A step without its rows, which must not stay in memory until their output is written."""

    shard: Shard
    rows: int
    failure: Failure | None
    source_hash: str
    is_end: bool

    @classmethod
    def of(cls, step: Step) -> Read:
        return cls(step.shard, step.rows, step.failure, step.source_hash, step.is_end)


PositionsToRetry = Callable[[Shard], frozenset[int]]
"""Given a shard of dead letters, returns the positions of the rows that it retries."""


def read_shards(
    shards: Iterable[Shard],
    source: SourceSpec,
    *,
    batch_size: int,
    by_shape: bool,
    to_retry: PositionsToRetry,
) -> Iterator[Step]:
    """Yield all steps of the first shard, in the order of its rows, then those of the next one.

    A shard is taken from *shards* when its reading begins. Never raises for a shard that cannot be
    read: its last step has the failure.
    """
    for shard in shards:
        try:
            wanted = to_retry(shard) if shard.slicing is Slicing.DEAD_LETTERS else None
            hashed = _hash(shard, source)
            chunks = _chunks(shard, source, wanted, hashed)
            yield from _steps(chunks, shard, batch_size=batch_size, by_shape=by_shape)
        except Exception as error:  # noqa: BLE001 - a file may hold anything: it fails its shard
            yield Step(shard, failure=_failure(error, shard, source))
        else:
            yield Step(shard, source_hash=hashed.text if hashed else "")


def _hash(shard: Shard, source: SourceSpec) -> SourceHash | None:
    """Return an object that hashes *shard* while it is read; None if no hash is needed.

    Only files on a disk need one: a file replaced by one of the same size differs only in its time,
    while an ETag depends on the bytes. Dead letters are covered by the hash of the shard they come
    from.
    """
    kind = source.kind_of(shard.uri)
    if kind is None or shard.slicing is Slicing.DEAD_LETTERS or not is_path(shard.uri):
        return None
    return kind.reader.source_hash(shard, columns=source.columns)


def _steps(
    chunks: Iterator[Chunk], shard: Shard, *, batch_size: int, by_shape: bool
) -> Iterator[Step]:
    bad: list[BadRow] = []
    for batch in batches(_good(chunks, bad), batch_size, by_shape=by_shape):
        yield Step(shard, batch=batch)
        if bad:
            yield Step(shard, bad=tuple(bad))
            bad.clear()
    if bad:
        yield Step(shard, bad=tuple(bad))


def _good(chunks: Iterator[Chunk], bad: list[BadRow]) -> Iterator[Chunk]:
    """Yield *chunks*, and append their unreadable rows to *bad*."""
    with closing(chunks):  # type: ignore[type-var]  # generators do close
        for chunk in chunks:
            bad += chunk.bad
            yield chunk


def _chunks(
    shard: Shard, source: SourceSpec, wanted: frozenset[int] | None, hashed: SourceHash | None
) -> Iterator[Chunk]:
    storage, key = locate(shard.uri, storage_options=source.storage_options)
    kind = source.kind_of(shard.uri)
    if kind is None:
        raise ShardFailedError(f"{shard.uri}: its name does not say the format; give source.format")
    # Opened with the planned identity: a file that changed since, or changes now, fails its shard.
    with storage.open(Entry(key, shard.size, shard.identity)) as file:
        if wanted is not None and not wanted:
            return  # the first shard was made again after damage, and no row failed
        if wanted is None:
            read = hashed.over(file) if hashed else file
            yield from _read(read, shard, kind, source)
            if hashed:  # before the file is closed: a file opened later might be another one
                hashed.finish(file)
        else:
            span = kind.reader.span(shard, wanted, compression=kind.compression)
            chunks = _read(file, span, kind, source)
            yield from picked(chunks, wanted, shard=shard)


def _read(file: BinaryIO, shard: Shard, kind: FileKind, source: SourceSpec) -> Iterator[Chunk]:
    hive = source.partitioning == "hive"
    partition = partition_columns(shard.uri, source.uris) if hive else ()
    return kind.reader.read(
        file, shard, compression=kind.compression, columns=source.columns, partition=partition
    )


@dataclass(frozen=True, slots=True)
class PickedChunk:
    """A chunk reduced to some of its rows.

    Attributes:
        whole: The chunk.
        numbers: Indexes in the chunk of the rows that are kept.
        bad: The unreadable rows that are kept.
    """

    whole: Chunk
    numbers: tuple[int, ...]
    bad: tuple[BadRow, ...]

    @property
    def types(self) -> pa.Schema | None:
        return self.whole.types

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes * len(self.numbers) // max(len(self.whole), 1)

    def __len__(self) -> int:
        return len(self.numbers)

    def positions(self) -> list[int]:
        positions = self.whole.positions()
        return [positions[number] for number in self.numbers]

    def rows(self, start: int, stop: int) -> list[Row]:
        return [self.whole.rows(n, n + 1)[0] for n in self.numbers[start:stop]]

    def reread(self, start: int, stop: int) -> list[Row]:
        return [self.whole.reread(n, n + 1)[0] for n in self.numbers[start:stop]]

    def segments(self) -> list[Segment]:
        segments = (
            (bisect_left(self.numbers, r.start), bisect_left(self.numbers, r.stop), r.shape)
            for r in self.whole.segments()
        )
        return [Segment(start, stop, shape) for start, stop, shape in segments if start < stop]

    def table(self, start: int, stop: int) -> pa.Table:
        from batchrunner.formats.columns import joined

        return joined([self.whole.table(n, n + 1) for n in self.numbers[start:stop]])

    def locate(self, index: int) -> Position:
        return self.whole.locate(self.numbers[index])


def picked(chunks: Iterator[Chunk], wanted: frozenset[int], *, shard: Shard) -> Iterator[Chunk]:
    """Yield the rows of *chunks* at the *wanted* positions, readable or not.

    Raises:
        ShardFailedError: A position is missing in *chunks*, so the file is another one.
    """
    count = 0
    for chunk in chunks:
        numbers = tuple(n for n, at in enumerate(chunk.positions()) if at in wanted)
        bad = tuple(row for row in chunk.bad if row.position.at in wanted)
        count += len(numbers) + len(bad)
        if numbers or bad:
            yield PickedChunk(chunk, numbers, bad)
        if count == len(wanted):
            return
    raise ShardFailedError(
        f"{shard}: {len(wanted) - count:,} rows to retry are not in the file any more; bring back the "
        "file as it was, or run with --fresh to start over"
    )


def _failure(error: Exception, shard: Shard, source: SourceSpec) -> Failure:
    if not isinstance(error, BatchRunnerError):
        kind = source.kind_of(shard.uri)
        reason = f"{shard}: {blamed(error, kind.format if kind else '?')}"
        return Failure(Cause.INPUT, reason, traceback_of(error))
    # Storage may recover, but an object that changed stays changed: another attempt would not help.
    by_storage = isinstance(error, StorageError) and not isinstance(error, ObjectChangedError)
    return Failure(Cause.STORAGE if by_storage else Cause.INPUT, str(error))
