"""The second count of rows: nothing in common with the first but the rules."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats import jsonl_second_reader
from batchrunner.formats.jsonl_second_reader import count_in_range, count_lines
from batchrunner.formats.lines import read_lines, row_ends

TEXTS = st.lists(st.sampled_from([b"a", b" ", b"\n", b"\r\n", b"\t", b"{}", b"\xe2\x80\xa8"])).map(
    b"".join
)


@pytest.fixture(autouse=True, params=[1, 3, 1 << 20])
def block(request, monkeypatch):
    """Blocks that end in every place."""
    monkeypatch.setattr(jsonl_second_reader, "BLOCK_BYTES", request.param)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_ranges_that_touch_share_no_row_and_lose_none(size):
    """Wherever a file is cut: the sum is the whole, and each range is what the reader has."""

    @given(TEXTS)
    def check(text):
        cuts = [*range(0, len(text), size), len(text)]
        counted = [count_in_range(io.BytesIO(text), a, b) for a, b in pairwise(cuts)]
        assert sum(counted) == sum(1 for line in text.split(b"\n") if line.strip())
        assert counted == [rows_read(text, a, b) for a, b in pairwise(cuts)]

    check()


def rows_read(text, start, stop):
    file = io.BytesIO(text)
    file.seek(max(start - 1, 0))
    blocks = read_lines(file, start=start, stop=stop)
    return sum(1 for found in blocks for _ in row_ends(found))


@given(TEXTS, st.integers(1, 5))
def test_a_head_has_at_most_so_many_rows(text, most):
    """A limit on a compressed file ends in the middle of it."""
    whole = count_lines(io.BytesIO(text))

    assert count_lines(io.BytesIO(text), most=most) == min(whole, most)


@pytest.mark.parametrize(
    ("text", "rows"), [(b"\xef\xbb\xbf\n{}", 1), (b"\xef\xbb\xbf{}", 1), (b"\n\xef\xbb\xbf\n", 1)]
)
def test_a_byte_order_mark_is_no_row_where_it_may_stand(text, rows, monkeypatch):
    """At the first byte of a file; anywhere else it is text."""
    monkeypatch.setattr(jsonl_second_reader, "BLOCK_BYTES", 1 << 20)

    assert count_in_range(io.BytesIO(text), 0, len(text)) == rows
    assert count_lines(io.BytesIO(text)) == rows
