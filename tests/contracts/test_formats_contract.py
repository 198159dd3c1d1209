"""Each format keeps the contract, also one that is none of ours."""

import datetime as dt
from decimal import Decimal

import pytest

from batchrunner.formats.csv_format import Csv, Tsv
from batchrunner.formats.jsonl import JsonLines
from batchrunner.formats.parquet import Parquet
from batchrunner.formats.text import Text
from batchrunner.testing.formats_contract import VALUES, FormatContract, packed
from frames_format import HEAD, Frames


class TestJsonLines(FormatContract):
    format = JsonLines()

    @pytest.fixture(params=[None, "gz", "zst", "bz2", "xz"])
    def outer(self, request):
        return request.param

    values = (*VALUES, False, 10**30, {}, [], [1, "a", {"b": 1.0}], "\ud800")
    bad_record = b'{"id": 1, "text": oops}\n'
    blank = b" \r\n"


class TestText(FormatContract):
    format = Text()
    values = ()  # a row has one column; `test_text.py` has the values
    bad_record = b"\xff\n"
    shows_its_end = False

    @pytest.fixture(params=[None, "gz", "zst", "bz2", "xz"])
    def outer(self, request):
        return request.param

    def some_rows(self, count):
        return [{"text": row["text"]} for row in super().some_rows(count)]


class TestCsv(FormatContract):
    format = Csv()
    values = (None, "", "ä€𝄞", "\x00", 'a\n"b"\\ \u2028', "null", "a,b\tc", "\r", " ")
    bad_record = b"one field\n"
    blank = b"\r\n"

    @pytest.fixture(params=[None, "gz", "zst", "bz2", "xz"])
    def outer(self, request):
        return request.param

    def some_rows(self, count):
        return [{**row, "id": str(row["id"])} for row in super().some_rows(count)]

    def with_pieces(self, *pieces, outer=None):
        data = header = b""
        for piece in pieces:
            if isinstance(piece, bytes):
                data += piece
            else:
                header, newline, rest = self.file_of(piece).partition(b"\n")
                data += rest
        return packed(header + newline + data, outer)


class TestTsv(TestCsv):
    format = Tsv()


class TestParquet(FormatContract):
    format = Parquet()
    most_held = 1 << 30  # it counts rows, whatever they hold: 16,384 of a row group at a time
    values = (*VALUES, b"\xff\x00", dt.date(1, 1, 1), dt.datetime(2026, 1, 2, 3, 4, 5, 6))  # noqa: DTZ001 - as Arrow has it
    values = (*values, Decimal("1.50"), dt.time(1, 2, 3, 4), [b"a", None])


class TestFrames(FormatContract):
    format = Frames()
    values = (*VALUES, b"\xff\x00", (1, "a"), {1, 2}, 2j, {1: {2: 3}})
    bad_record = HEAD.pack(3, 7) + b"{ }"
