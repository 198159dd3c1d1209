"""Files that other programs compressed: every stream of them, or an error."""

import bz2
import gzip
import io
import lzma

import pytest

from batchrunner.formats.compression import open_compressed
from batchrunner.formats.jsonl_second_reader import uncompressed

DATA = b"".join(b'{"id": %d}\n' % n for n in range(20_000))
PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def read(data, compression, *, size=1000):
    stream, found = open_compressed(io.BytesIO(data), compression), b""
    while block := stream.read(size):
        assert len(block) <= size
        found += block
    return found


@pytest.mark.parametrize("compression", PACK)
def test_streams_that_follow_each_other_are_one_file(compression):
    """`pbzip2`, `pixz` and `cat a.gz b.gz` write several."""
    stream = PACK[compression](DATA)

    assert read(stream + stream, compression) == DATA + DATA
    assert uncompressed(io.BytesIO(stream + stream), compression).read(len(DATA)) == DATA


@pytest.mark.parametrize("compression", ["bz2", "xz"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda one: one[:-3],
        lambda one: one + one[:-1],
        lambda one: one + one[:5],
        lambda one: one + b"no stream",
        lambda one: one[:60] + bytes([one[60] ^ 1]) + one[61:],
        lambda _: b"no stream at all",
    ],
)
def test_no_damage_passes_for_the_end_of_the_file(compression, damage):
    """Python's own readers end in silence before a second stream that is damaged in its head."""
    with pytest.raises(OSError, match=r"\w"):
        read(damage(PACK[compression](DATA)), compression)


def test_streams_of_xz_may_be_padded_with_zeros():
    """By a multiple of four, as its specification says."""
    stream = lzma.compress(DATA)

    assert read(stream + b"\0" * 8 + stream + b"\0" * 4, "xz") == DATA + DATA
    with pytest.raises(OSError, match="follow its last one"):
        read(stream + b"\0" * 6, "xz")


@pytest.mark.parametrize("compression", ["bz2", "xz"])
def test_a_bomb_is_read_in_blocks(compression):
    """A gigabyte of zeros has a few kilobytes, compressed."""
    stream = open_compressed(io.BytesIO(PACK[compression](bytes(64 << 20))), compression)

    assert len(stream.read(1 << 20)) <= 1 << 20
