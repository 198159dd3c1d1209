"""Reads the rows of tar files."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row
from batchrunner.formats.compression import open_compressed
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.lines import buffered
from batchrunner.formats.partitions import Partition, add_to_rows, wanted
from batchrunner.formats.records import ParsedRows, project
from batchrunner.formats.tar_members import Sample, samples
from batchrunner.shard import Slice, Slicing

CHUNK_BYTES, CHUNK_ROWS = 4 << 20, 4096
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class SampleChunk(ParsedRows):
    """Some samples of a tar file.

    Attributes:
        parsed: The rows. Their values cannot be changed, so that copies of the dicts are enough.
        offsets: The position of each row.
        nbytes: How many bytes of the file the members take, with their headers and padding.
        bad: The samples between them that are no rows.
    """

    parsed: list[Row]
    offsets: list[int]
    nbytes: int
    bad: tuple[BadRow, ...] = ()

    def rows(self, start: int, stop: int) -> list[Row]:
        return list(map(dict, self.parsed[start:stop]))

    reread = rows

    def positions(self) -> list[int]:
        return self.offsets

    def locate(self, index: int) -> Position:
        row = self.parsed[index]
        sizes = {name: len(v) if isinstance(v, bytes) else v for name, v in row.items()}
        return _position(self.offsets[index], sizes)


def read_tar(
    file: BinaryIO,
    piece: Slice,
    *,
    compression: str | None,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[SampleChunk]:
    """Yield the samples of *piece*, a few megabytes at a time, in file order.

    Reads the file front to back: all bytes of the slice are hashed.

    Args:
        file: The whole file.
        piece: The slice of the file to read.
        compression: The compression of the whole file, or None.
        columns: The columns to keep, or None for all.
        partition: Columns that the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The file is damaged, cut short, or no tar.
    """
    partition = wanted(partition, columns)
    try:
        yield from _chunks(_samples(file, piece, compression), columns, partition)
    except (ShardFailedError, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{piece.uri} cannot be read as a tar: {error}; {MEND}") from error


def _samples(file: BinaryIO, piece: Slice, compression: str | None) -> Iterator[Sample]:
    if piece.slicing is Slicing.BYTES:
        file.seek(piece.start)
        return samples(buffered(file), start=piece.start, stop=piece.stop)
    found = samples(open_compressed(file, compression) if compression else buffered(file))
    return islice(found, piece.stop) if piece.slicing is Slicing.HEAD else found


def _chunks(
    found: Iterator[Sample], columns: tuple[str, ...] | None, partition: Partition
) -> Iterator[SampleChunk]:
    collected = SampleChunk([], [], 0)
    bad: list[BadRow] = []
    size = 0
    for sample in found:
        row = _row(sample, columns)
        fault = sample.fault or add_to_rows([row], partition).get(0)
        if fault:
            bad.append(BadRow(_position(sample.at, {"__key__": sample.key, **sample.sizes}), fault))
        else:
            collected.parsed.append(row)
            collected.offsets.append(sample.at)
            size += sum(_taken(sample.sizes[name]) for name in row if name in sample.sizes)
        if size >= CHUNK_BYTES or len(collected) + len(bad) >= CHUNK_ROWS:
            yield SampleChunk(collected.parsed, collected.offsets, size, tuple(bad))
            collected, bad, size = SampleChunk([], [], 0), [], 0
    if collected.parsed or bad:
        yield SampleChunk(collected.parsed, collected.offsets, size, tuple(bad))


def _taken(size: int) -> int:
    """Return how many bytes a member of *size* takes in the file: a header, and whole blocks."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _row(sample: Sample, columns: tuple[str, ...] | None) -> Row:
    return project([{"__key__": sample.key, **sample.members}], columns)[0]


def _position(at: int, sizes: Row) -> Position:
    """Return the position of a sample, which shows the sizes of its members: the file has them."""
    return Position("byte", at, json.dumps(sizes, default=str).encode()[:MAX_RAW_BYTES])
