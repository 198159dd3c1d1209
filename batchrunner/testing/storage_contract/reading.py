"""Reading an object as a file, pinned to the bytes that were listed."""

# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import io
import os
from functools import partial
from typing import cast

import pytest

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError
from batchrunner.storage.contract import Storage
from batchrunner.testing.storage_contract.acts import (
    Races,
    at_once,
    entry_of,
    read_all,
)


class ReadPromises(Races):
    """An open object reads like a file, and never as a mixture of two versions."""

    def test_an_open_object_reads_like_a_file(self, storage: Storage) -> None:
        """Parquet readers seek, JSONL readers read on, and both stop at the end."""
        data = os.urandom(300_000)
        storage.put("key", data)

        with storage.open(entry_of(storage, "key")) as file:
            assert file.seekable()
            assert file.readable()
            assert file.read(10) == data[:10]
            assert file.tell() == 10
            assert file.seek(-5, io.SEEK_END) == 299_995
            assert file.read(100) == data[-5:]
            assert file.read(100) == b""
            assert file.seek(1_000) == 1_000
            assert file.seek(500, io.SEEK_CUR) == 1_500
            assert file.read(200_000) == data[1_500:201_500]
            file.seek(400_000)
            assert file.read() == b""
            file.seek(0)
            assert file.read() == data

    def test_an_open_object_can_be_buffered(self, storage: Storage) -> None:
        """Readers of lines wrap it in a buffer."""
        lines = [b"line %d\n" % number for number in range(5_000)]
        storage.put("key", b"".join(lines))

        raw = cast(io.RawIOBase, storage.open(entry_of(storage, "key")))
        with io.BufferedReader(raw) as file:
            assert list(file) == lines

    def test_an_empty_object_reads_as_nothing(self, storage: Storage) -> None:
        """A range request cannot ask for the first byte of an empty object."""
        storage.put("key", b"")

        with storage.open(entry_of(storage, "key")) as file:
            assert file.read() == b""

    def test_several_readers_do_not_disturb_each_other(self, storage: Storage) -> None:
        """Workers read shards of one file at the same time."""
        data = os.urandom(200_000)
        storage.put("key", data)
        entry = entry_of(storage, "key")

        def read(start: int) -> bytes:
            with storage.open(entry) as file:
                file.seek(start)
                return b"".join(file.read(1_000) for _ in range(50))

        starts = [0, 50_000, 100_000, 150_000]
        read_at_once = at_once(partial(read, start) for start in starts)

        assert read_at_once == [data[start : start + 50_000] for start in starts]

    def test_an_object_replaced_since_it_was_listed_is_not_read(self, storage: Storage) -> None:
        """The plan was made from other bytes."""
        storage.put("key", b"old!")
        entry = entry_of(storage, "key")
        storage.put("key", b"new!")

        with pytest.raises(ObjectChangedError, match="key"):
            read_all(storage, entry)

    def test_an_object_that_is_gone_is_not_read(self, storage: Storage) -> None:
        """The error differs from that for a changed object."""
        storage.put("key", b"old!")
        entry = entry_of(storage, "key")
        storage.delete(["key"])

        with pytest.raises(ObjectNotFoundError, match="key"):
            read_all(storage, entry)

    def test_an_object_replaced_while_it_is_read_never_reads_as_a_mixture(
        self, storage: Storage
    ) -> None:
        """A reader could not detect that its rows are from two versions."""
        old, new = b"o" * 30_000_000, b"n" * 30_000_000
        storage.put("key", old)
        entry = entry_of(storage, "key")

        def read() -> bytes:
            with storage.open(entry) as file:
                first = file.read(10)
                storage.put("key", new)
                return first + file.read()

        with contextlib.suppress(ObjectChangedError):
            assert read() == old
