"""What is uploaded is a window of a file: no more, no less, and as often as it is asked for."""

import asyncio
import os

import pytest

from batchrunner.storage.s3.bodies import Window

DATA = bytes(range(256)) * (9 << 10)


@pytest.fixture
def fd(tmp_path):
    """A file of two and a quarter megabytes."""
    path = tmp_path / "staged"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def sent(window):
    """What aiohttp would send."""

    async def chunks():
        return [chunk async for chunk in window]

    return asyncio.run(chunks())


@pytest.mark.parametrize(("start", "size"), [(0, len(DATA)), (5, 1 << 20), (7, 0), (1 << 21, 9)])
def test_a_window_is_exactly_its_bytes(fd, start, size):
    """Parts of an upload lie side by side in one file."""
    window = Window(fd, start, size)
    expected = DATA[start : start + size]

    assert len(window) == size
    assert window.read() == expected
    assert window.read() == b""
    window.seek(0)
    assert b"".join(sent(window)) == expected


def test_a_window_is_read_in_pieces_and_again(fd):
    """For a checksum, for a signature, to send it, and all that once more when an attempt failed."""
    window = Window(fd, 100, 1000)

    first, second = window.read(600), window.read(600)
    there, end = window.tell(), window.seek(0, os.SEEK_END)
    window.seek(600)

    assert (first + second, there, end) == (DATA[100:1100], 1000, 1000)
    assert window.read() == second
    assert window.seek(-400, os.SEEK_CUR) == 600


def test_no_more_than_a_megabyte_is_in_memory(fd):
    """Whatever the size of a part."""
    assert max(map(len, sent(Window(fd, 0, len(DATA))))) == 1 << 20
