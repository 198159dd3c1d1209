"""The shards of a group as one ordered stream of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO

from batchrunner.errors import (
    BatchRunnerError,
    ObjectChangedError,
    ShardFailedError,
    StorageError,
    describe,
)
from batchrunner.formats.chunk import BadRow, Chunk
from batchrunner.formats.hashing import SourceHash
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import FileKind, file_kind, format_named
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, is_path, locate
from batchrunner.worker.batch import Batch, batches
from batchrunner.worker.picking import picked
from batchrunner.worker.receipt import Cause, Failure


@dataclass(frozen=True, slots=True)
class Step:
    """The next thing about a shard: a batch, rows that cannot be read, or why it cannot be read on.

    None of them: its end; then with the hash of what was read, where one is kept.
    """

    shard: Shard
    batch: Batch | None = None
    bad: tuple[BadRow, ...] = ()
    failure: Failure | None = None
    source_hash: str = ""

    @property
    def rows(self) -> int:
        """How many rows of the source it is about."""
        return len(self.batch) if self.batch else len(self.bad)

    @property
    def nbytes(self) -> int:
        """About how many bytes of the source it holds."""
        return self.batch.nbytes if self.batch else 0

    @property
    def is_end(self) -> bool:
        """Tell whether all of the shard has been read."""
        return self.batch is None and not self.bad and self.failure is None


@dataclass(frozen=True, slots=True)
class Read:
    """What is left of a step to know once its rows have been through the capability.

    Without the rows: what was read must not stay in memory until what was made of it is written.
    """

    shard: Shard
    rows: int
    failure: Failure | None
    source_hash: str
    is_end: bool

    @classmethod
    def of(cls, step: Step) -> Read:
        return cls(step.shard, step.rows, step.failure, step.source_hash, step.is_end)


SetAside = Callable[[Shard], frozenset[int]]
"""Tells where the rows stand that a shard of kind LETTERS tries again."""


def read_shards(
    shards: Sequence[Shard],
    source: SourceSpec,
    *,
    batch_size: int,
    by_shape: bool,
    set_aside: SetAside,
) -> Iterator[Step]:
    """Yield all steps of the first shard, in the order of its rows, then of the next.

    Never raises for a shard.
    """
    for shard in shards:
        try:
            wanted = set_aside(shard) if shard.slicing is Slicing.DEAD_LETTERS else None
            hashed = _hash(shard, source)
            chunks = _chunks(shard, source, wanted, hashed)
            yield from _steps(chunks, shard, batch_size=batch_size, by_shape=by_shape)
        except Exception as error:  # noqa: BLE001 - a file may hold anything: it costs its shard
            yield Step(shard, failure=Failure(_cause(error), _reason(error)))
        else:
            yield Step(shard, source_hash=hashed.text if hashed else "")


def _hash(shard: Shard, source: SourceSpec) -> SourceHash | None:
    """Return what takes the hash of *shard*, where a time is all that tells its file from another.

    A bucket's ETags follow the bytes by themselves. Rows that are tried again have their origin's.
    """
    kind = file_kind(shard.uri, format=source.format)
    if kind is None or shard.slicing is Slicing.DEAD_LETTERS or not is_path(shard.uri):
        return None
    return format_named(kind.format).source_hash(shard, columns=source.columns)


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
    """Yield *chunks*, and note the rows between theirs that cannot be read."""
    with closing(chunks):  # type: ignore[type-var]  # generators do close
        for chunk in chunks:
            bad += chunk.bad
            yield chunk


def _chunks(
    shard: Shard, source: SourceSpec, wanted: frozenset[int] | None, hashed: SourceHash | None
) -> Iterator[Chunk]:
    storage, key = locate(shard.uri, storage_options=source.storage_options)
    kind = file_kind(shard.uri, format=source.format)
    if kind is None:
        raise ShardFailedError(f"{shard.uri}: its name does not say the format; give source.format")
    with storage.open(Entry(key, shard.size, shard.identity)) as file:
        if wanted is not None and not wanted:
            return  # the shard that had set rows aside was made again, and none failed
        if wanted is None:
            read = hashed.over(file) if hashed else file
            yield from _read(read, shard, kind, source)
            if hashed:  # while the file is open: it is then the one that was planned
                hashed.finish(file)
        else:
            span = format_named(kind.format).span(shard, wanted, compression=kind.compression)
            chunks = _read(file, span, kind, source)
            yield from picked(chunks, wanted, shard=shard)


def _read(file: BinaryIO, shard: Shard, kind: FileKind, source: SourceSpec) -> Iterator[Chunk]:
    hive = source.partitioning == "hive"
    partition = partition_columns(shard.uri, source.uris) if hive else ()
    return format_named(kind.format).read(
        file, shard, compression=kind.compression, columns=source.columns, partition=partition
    )


def _cause(error: Exception) -> Cause:
    kept = isinstance(error, StorageError) and not isinstance(error, ObjectChangedError)
    return Cause.STORAGE if kept else Cause.INPUT


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, BatchRunnerError) else describe(error)
