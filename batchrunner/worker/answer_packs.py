"""Answers of many rows as a few lists: in memory, or in a temporary file without a name, which only this process reads."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from batchrunner.formats.chunk import Row
from batchrunner.worker.row_call import Answered
from batchrunner.worker.usage import NO_USAGE, Usage

PACKED_TOGETHER = 1024
"""About how many answers a pack holds."""

Key = tuple[int, int]
"""The number of the row's slice in its shard, and where it stands in the file of that slice."""

NO_ANSWER = -1
"""Stands for the count of a row that has no answer here."""


@dataclass(slots=True)
class Pack:
    """Answers of some rows, in the order of their keys.

    Attributes:
        numbers: For each row, the number of its slice.
        places: Where each row stands in its file.
        counts: How many of `rows` each gave, or `NO_ANSWER`.
        rows: What the capability gave for all of them.
        usages: What their calls used, by index, if they used anything.
    """

    numbers: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    usages: dict[int, Usage] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def first(self) -> Key:
        return self.numbers[0], self.places[0]

    @property
    def last(self) -> Key:
        return self.numbers[-1], self.places[-1]

    def add(self, key: Key, answer: Answered) -> None:
        """Add the *answer* of the row of *key*, which comes after the others."""
        if answer.usage:
            self.usages[len(self)] = answer.usage
        self.numbers.append(key[0])
        self.places.append(key[1])
        self.counts.append(len(answer.rows))
        self.rows.extend(answer.rows)

    def answers(self) -> Iterator[tuple[Key, Answered]]:
        """Yield the key and the answer of each row that has one."""
        start, keys = 0, zip(self.numbers, self.places, strict=True)
        for index, (key, count) in enumerate(zip(keys, self.counts, strict=True)):
            if count != NO_ANSWER:
                stop = start + count
                yield key, Answered(self.rows[start:stop], self.usages.get(index, NO_USAGE))
                start = stop

    def unpacked(self) -> Pack:
        return self


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A pack in the temporary file, of rows from *first* to *last* in the order of their keys."""

    file: IO[bytes]
    first: Key
    last: Key
    offset: int
    size: int

    def unpacked(self) -> Pack:
        self.file.seek(self.offset)
        return Pack(*pickle.loads(self.file.read(self.size)))  # noqa: S301 - our own, of this process


class PackFile:
    """The temporary file, as long as a pack is in it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    def store(self, pack: Pack) -> StoredPack:
        """Write *pack*. Raises if it cannot be written: the disk is full, or an answer cannot be pickled."""
        fields = pack.numbers, pack.places, pack.counts, pack.rows, pack.usages
        data = pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - as long as packs are in it
        offset = self._file.seek(0, 2)
        self._file.write(data)
        return StoredPack(self._file, pack.first, pack.last, offset, len(data))

    def close(self) -> None:
        """Remove the file, in which no pack is read any more."""
        if self._file is not None:
            self._file.close()
            self._file = None
