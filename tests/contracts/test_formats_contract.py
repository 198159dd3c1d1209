"""Each format keeps the contract, also one that is none of ours."""

import datetime as dt
import io
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from batchrunner.formats.arrow_file import Arrow
from batchrunner.formats.compression import OUTER
from batchrunner.formats.csv_format import Csv, Tsv
from batchrunner.formats.json_files import Json
from batchrunner.formats.jsonl import JsonLines
from batchrunner.formats.parquet import Parquet
from batchrunner.formats.tar import Tar
from batchrunner.formats.text import Text
from batchrunner.testing.formats_contract import VALUES, FormatContract, packed
from frames_format import HEAD, Frames
from tars import member, tar_of


class TestJsonLines(FormatContract):
    format = JsonLines()

    @pytest.fixture(params=[None, *OUTER])
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

    @pytest.fixture(params=[None, *OUTER])
    def outer(self, request):
        return request.param

    def some_rows(self, count):
        return [{"text": row["text"]} for row in super().some_rows(count)]

    def shown_of(self, row):
        return row["text"].encode()


class TestCsv(FormatContract):
    format = Csv()
    values = (None, "", "ä€𝄞", "\x00", 'a\n"b"\\ \u2028', "null", "a,b\tc", "\r", " ")
    bad_record = b"one field\n"
    blank = b"\r\n"

    @pytest.fixture(params=[None, *OUTER])
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

    @pytest.fixture(params=[None])  # what is undone around it is the same for CSV
    def outer(self, request):
        return request.param


class TestParquet(FormatContract):
    format = Parquet()
    most_held = 1 << 30  # it counts rows, whatever they hold: 16,384 of a row group at a time
    values = (*VALUES, b"\xff\x00", dt.date(1, 1, 1), dt.datetime(2026, 1, 2, 3, 4, 5, 6))  # noqa: DTZ001 - as Arrow has it
    values = (*values, Decimal("1.50"), dt.time(1, 2, 3, 4), [b"a", None])


class TestJson(FormatContract):
    format = Json()
    indent = None
    bad_record = b'{"id": 1, "text": oops}'
    blank = b" \r\n\t"

    @pytest.fixture(params=[None, *Json.outer])
    def outer(self, request):
        return request.param

    def file_of(self, rows, *, compression="none"):
        return self.with_pieces(rows, outer=compression)

    def with_pieces(self, *pieces, outer=None):
        text, comma = [b"["], b""
        for piece in pieces:
            if isinstance(piece, bytes) and not piece.strip():
                text.append(piece)
                continue
            for one in [piece] if isinstance(piece, bytes) else piece:
                element = json.dumps(one, indent=self.indent) if isinstance(one, dict) else ""
                text += comma, element.encode() or one
                comma = b","
        return packed(b"".join([*text, b"]"]), outer)


class TestIndentedJson(TestJson):
    indent = 2


class TestArrow(FormatContract):
    format = Arrow()
    most_held = 1 << 30  # a record batch at a time, whatever it holds

    def file_of(self, rows, *, compression="none"):
        return written(pa.ipc.new_file, rows)

    def _changed(self, data, piece):
        return data.replace(b"row ", b"Row ")  # in each record batch: a slice has rows of one


class TestArrowStream(TestArrow):
    def file_of(self, rows, *, compression="none"):
        return written(pa.ipc.new_stream, rows)


class TestFrames(FormatContract):
    format = Frames()
    values = (*VALUES, b"\xff\x00", (1, "a"), {1, 2}, 2j, {1: {2: 3}})
    bad_record = HEAD.pack(3, 7) + b"{ }"


class TestTar(FormatContract):
    format = Tar()
    bad_record = member("no-extension", b"!")
    values = (b"", b"\xff\x00", b"\0" * 5000, "ä".encode())
    blank = member("a-folder/", b"", type=b"5")

    @pytest.fixture(params=[None, *Tar.outer])
    def outer(self, request):
        return request.param

    def some_rows(self, count):
        rows = super().some_rows(count)
        return [
            {"__key__": f"in/{at:05}", "id": str(row["id"]).encode(), "text": row["text"].encode()}
            for at, row in enumerate(rows)
        ]

    def shown_of(self, row):
        return row["__key__"].encode()

    def with_pieces(self, *pieces, outer=None):
        return tar_of(*pieces, compression=outer)


def written(new, rows):
    """Three record batches."""
    table, out = pa.Table.from_pylist(rows), io.BytesIO()
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(-(-len(rows) // 3), 10))
    return out.getvalue()
