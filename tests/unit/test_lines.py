"""Lines of a byte range: none lost, none twice, in bounded memory."""

import io
import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats import lines
from batchrunner.formats.lines import HEAD_BYTES, read_lines, row_ends

TEXT = st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\r", b"\xe2\x80\xa8"])).map(b"".join)


def blocks(data, *, start=0, stop=None, **kwargs):
    stream = io.BytesIO(data)
    stream.seek(max(start - 1, 0))
    return list(read_lines(stream, start=start, stop=stop, **kwargs))


@given(data=TEXT, cuts=st.sets(st.integers(1, 60)), block=st.integers(1, 9))
def test_ranges_that_touch_share_no_line_and_lose_none(data, cuts, block):
    """Wherever a file is cut, and however it is read, its lines come out once and in order."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        found = [
            one
            for start, stop in itertools.pairwise(edges)
            for one in blocks(data, start=start, stop=stop)
        ]

    assert b"".join(one.data for one in found) == data
    assert all(data[one.offset :].startswith(one.data) for one in found)
    assert all(one.data.endswith(b"\n") for one in found[:-1])


@given(data=TEXT, start=st.integers(0, 40), length=st.integers(1, 40))
def test_a_line_belongs_to_the_range_of_its_first_byte(data, start, length):
    """The rule that makes cuts harmless."""
    starts = [0, *(i + 1 for i, byte in enumerate(data) if byte == 10)]
    expected = [s for s in starts if start <= s < start + length and s < len(data)]

    found = blocks(data, start=start, stop=start + length)

    got = [
        one.offset + sum(map(len, one.data.splitlines(keepends=True)[:n]))
        for one in found
        for n in range(one.data.count(b"\n") + (not one.data.endswith(b"\n")))
        if b"\r" not in data
    ]
    assert b"\r" in data or got == expected


def test_a_line_that_is_too_long_is_skipped_in_bounded_memory():
    """A gigabyte without a newline must not need a gigabyte."""

    class Zeros(io.RawIOBase):
        left = 200 << 20

        def read(self, size=-1):
            if not self.left:
                return b""
            size = min(size, self.left)
            self.left -= size
            return b"0" * size if self.left else b"0" * (size - 6) + b"\nnext\n"

    tracemalloc.start()
    found = list(read_lines(Zeros(), max_line=4 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [one.overlong for one in found] == [(200 << 20) - 5, 0]
    assert (len(found[0].data), found[1].data) == (HEAD_BYTES, b"next\n")
    assert peak < 32 << 20


@pytest.mark.parametrize("block", [7, 64, 1000])
def test_a_file_of_one_line_is_read_no_more_than_twice(block, monkeypatch):
    """Each range used to read on to a newline that never came: n ranges read the file n/2 times."""

    class Counted(io.BytesIO):
        read_bytes = 0

        def read(self, size=-1, /):
            data = super().read(size)
            Counted.read_bytes += len(data)
            return data

    monkeypatch.setattr(lines, "BLOCK_BYTES", block)
    data = b"[" + b"1," * 5000 + b"1]"
    edges = range(0, len(data), 500)
    found = []
    for start, stop in itertools.pairwise([*edges, len(data)]):
        stream = Counted(data)
        stream.seek(max(start - 1, 0))
        found += read_lines(stream, start=start, stop=stop)

    assert b"".join(one.data for one in found) == data
    assert Counted.read_bytes <= 2 * len(data) + len(edges) * (block + 1)


@given(data=TEXT)
def test_row_ends_count_the_lines_that_are_not_blank(data):
    """What `shard.rows` and `limit` count is what the reader finds."""
    ends = [end for block in blocks(data) for end in row_ends(block)]

    assert len(ends) == sum(bool(line.strip()) for line in data.split(b"\n"))
    assert ends == sorted(ends)
