"""Parquet as a source and as a sink: which rows a shard is, and what a part becomes."""

import contextlib
import io
import json
import random
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import encryption

from batchrunner.errors import ObjectChangedError, ShardFailedError
from batchrunner.formats import parquet_reader
from batchrunner.formats.chunk import MAX_RAW_BYTES
from batchrunner.formats.contract import Sharding
from batchrunner.formats.parquet import Parquet
from batchrunner.formats.parquet_reader import count_rows, read_parquet
from batchrunner.shard import Slice, Slicing
from forks import in_child

GROUPS = [3, 1, 5, 2]
TOTAL = sum(GROUPS)
DAY, JULIAN = 86_400 * 10**9, 2_440_588


def a_file(groups=GROUPS, **columns):
    """Numbered rows in row groups of these sizes."""
    buffer, first = pa.BufferOutputStream(), 0
    make = columns or {"n": lambda n: n, "text": lambda n: f"row {n}"}
    for rows in groups:
        numbers = range(first, first + rows)
        table = pa.table({name: [value(n) for n in numbers] for name, value in make.items()})
        if not first:
            writer = pq.ParquetWriter(buffer, table.schema, compression="none")
        writer.write_table(table)
        first += rows
    writer.close()
    return buffer.getvalue().to_pybytes()


def chunks(data, slicing=Slicing.FILE, start=0, stop=0, *, columns=None):
    shard = Slice("s3://b/x.parquet", slicing, start, stop, len(data), "")
    return list(read_parquet(io.BytesIO(data), shard, columns=columns))


def rows(*args, **kwargs):
    return [row for chunk in chunks(*args, **kwargs) for row in chunk.rows(0, len(chunk))]


def numbers(*args, **kwargs):
    return [row["n"] for row in rows(*args, **kwargs)]


@given(start=st.integers(0, TOTAL), length=st.integers(0, TOTAL + 3), at_once=st.integers(1, 7))
def test_a_shard_of_rows_has_these_rows(start, length, at_once):
    """Wherever row groups begin and end, and however many rows are decoded at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_reader, "READ_ROWS", at_once)
        found = numbers(a_file(), Slicing.ROWS, start, start + length)

    assert found == list(range(TOTAL))[start : start + length]


@pytest.mark.parametrize("start", range(5))
@pytest.mark.parametrize("stop", range(5))
def test_a_shard_of_row_groups_has_their_rows(start, stop):
    """One, some, all or none of them."""
    edges = [0, 3, 4, 9, 11]

    found = numbers(a_file(), Slicing.ROW_GROUPS, start, stop)

    assert found == list(range(edges[start], edges[stop]))


@pytest.mark.parametrize(
    ("slicing", "start", "stop", "first"),
    [(Slicing.FILE, 0, 0, 0), (Slicing.ROW_GROUPS, 2, 4, 4), (Slicing.ROWS, 5, 10, 5)],
)
def test_every_row_knows_its_number_in_the_file(monkeypatch, slicing, start, stop, first):
    """An error names it, whichever slice of the file it was found in."""
    monkeypatch.setattr(parquet_reader, "READ_ROWS", 2)

    places = [c.locate(i) for c in chunks(a_file(), slicing, start, stop) for i in range(len(c))]

    assert [place.at for place in places] == list(range(first, first + len(places)))
    assert {place.unit for place in places} == {"row"}
    assert [json.loads(place.raw)["n"] for place in places] == [place.at for place in places]


def test_what_is_kept_of_a_row_is_bounded():
    """A row may hold an image."""
    [chunk] = chunks(a_file([1], n=lambda _: "x" * 10_000))

    assert len(chunk.locate(0).raw) == MAX_RAW_BYTES


def test_rows_are_decoded_a_few_thousand_at_a_time():
    """A row group may hold a million."""
    found = chunks(a_file([40_000], n=lambda n: n))

    assert max(map(len, found)) == parquet_reader.READ_ROWS
    assert sum(map(len, found)) == 40_000


def test_a_chunk_gives_rows_and_tables_of_any_part_of_it():
    """A batch may begin and end in the middle of it."""
    [chunk] = chunks(a_file())

    assert chunk.rows(2, 4) == [{"n": 2, "text": "row 2"}, {"n": 3, "text": "row 3"}]
    assert chunk.table(2, 4).to_pylist() == chunk.rows(2, 4) == chunk.reread(2, 4)
    assert (len(chunk), chunk.bad) == (TOTAL, ())


def test_only_the_columns_asked_for_are_decoded():
    """The others may even be damaged."""
    data = a_file([2000], n=lambda n: n, text=lambda n: f"{n:060d}")
    text = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(1)
    start = text.dictionary_page_offset or text.data_page_offset
    hurt = data[:start] + b"\xff" * text.total_compressed_size
    hurt += data[start + text.total_compressed_size :]

    assert rows(hurt, columns=("n",)) == [{"n": n} for n in range(2000)]
    with pytest.raises(ShardFailedError):
        rows(hurt)


def test_only_the_row_groups_of_a_shard_are_decoded():
    """So a file of many costs each worker its share."""
    data = a_file()
    third = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(2).column(0)
    start = third.dictionary_page_offset or third.data_page_offset
    hurt = data[:start] + b"\xff" * 10 + data[start + 10 :]

    assert numbers(hurt, Slicing.ROW_GROUPS, 0, 2) == [0, 1, 2, 3]
    assert numbers(hurt, Slicing.ROWS, 1, 4) == [1, 2, 3]
    assert numbers(hurt, Slicing.ROWS, 9, 11) == [9, 10]
    with pytest.raises(ShardFailedError):
        numbers(hurt, Slicing.ROWS, 3, 5)


def test_a_missing_column_is_named_with_those_that_are_there():
    """A typo is seen at once."""
    with pytest.raises(ShardFailedError, match=r"no column 'txt'.* it has n, text"):
        rows(a_file(), columns=("n", "txt"))


@pytest.mark.parametrize("data", [b"", b"PAR1", b'{"a":1}\n' * 9, b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_named(data):
    """Whatever its name says."""
    with pytest.raises(ShardFailedError, match=r"s3://b/x\.parquet cannot be read as Parquet"):
        rows(data)


@pytest.mark.parametrize("unit", ["bytes", "rows", "row_groups", "files"])
@pytest.mark.parametrize("has_plain_footer", [True, False])
def test_an_encrypted_column_is_refused_and_ends_no_process(has_plain_footer, unit):
    """Pyarrow ends the process, and so a driver, that asks for the size of one."""
    data = an_encrypted_file(plaintext_footer=has_plain_footer)

    def cut_and_read():
        cuts = Parquet().cut(
            len(data),
            compression=None,
            sharding=Sharding(unit, 1),
            limit=None,
            opened=lambda: io.BytesIO(data),
        )
        assert [cut.slicing for cut in cuts] == [Slicing.FILE]
        with pytest.raises(ShardFailedError, match=r"it is encrypted: write it again without"):
            rows(data)

    assert not in_child(cut_and_read)


def test_of_an_encrypted_file_the_plain_columns_can_be_read():
    """As the message says."""
    data = an_encrypted_file(plaintext_footer=True)

    assert rows(data, columns=("n",)) == [{"n": 1}]


class Keys(encryption.KmsClient):
    """Wraps keys by nothing: what is encrypted here is read nowhere."""

    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes.hex()

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return bytes.fromhex(wrapped_key)


def an_encrypted_file(**how):
    buffer, factory = io.BytesIO(), encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration("footer", column_keys={"a key": ["secret"]}, **how),
    )
    table = pa.table({"n": [1], "secret": ["a"]})
    with pq.ParquetWriter(buffer, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def test_a_name_of_a_column_that_is_no_text_is_refused():
    """Not an internal error, and a way out."""
    data = a_file(nnnn=lambda n: n).replace(b"nnnn", b"n\xff\xff\xff")

    with pytest.raises(ShardFailedError, match=r"cannot be read as Parquet.*move it away"):
        rows(data)


def test_a_file_that_was_cut_short_is_never_taken_for_the_whole():
    """At no length: the footer stands at its end."""
    data = a_file()
    for length in range(0, len(data), 7):
        with pytest.raises(ShardFailedError):
            rows(data[:length])


def test_damaged_data_fails_its_shard_and_nothing_else():
    """Any byte may be wrong; Arrow has many ways to say so, and none gets past the shard."""
    data, dice = a_file(), random.Random(7)
    footer = int.from_bytes(data[-8:-4], "little")
    refused = 0
    for _ in range(500):
        hurt = bytearray(data)
        hurt[dice.randrange(len(data) - footer - 8)] ^= 1 << dice.randrange(8)
        with contextlib.suppress(ShardFailedError):
            chunks(bytes(hurt))
            continue
        refused += 1

    assert refused > 20


def test_what_storage_says_stays_what_it_says():
    """A file that changed while it was read is another matter than one that is no Parquet."""

    class Changing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() < 100:
                raise ObjectChangedError("it changed")
            return super().read(size)

    shard = Slice("x.parquet", Slicing.FILE, 0, 0, 0, "")
    with pytest.raises(ObjectChangedError, match="it changed"):
        list(read_parquet(Changing(a_file()), shard, columns=None))


def written(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def int96(*instants):
    """A file of (days since 1970, nanoseconds of the day), as Spark writes it."""
    marks = [10**15 + n for n in range(len(instants))]
    data = written(
        pa.table({"n": range(len(marks)), "t": pa.array(marks, pa.timestamp("ns"))}),
        use_deprecated_int96_timestamps=True,
        use_dictionary=False,
        compression="none",
    )
    for mark, (days, nanoseconds) in zip(marks, instants, strict=True):
        old = struct.pack("<QI", mark % DAY, mark // DAY + JULIAN)
        assert data.count(old) <= 3  # in the column, and perhaps in the statistics
        data = data.replace(old, struct.pack("<QI", nanoseconds, days + JULIAN))
    return data


def test_instants_of_96_bits_are_read_as_they_are():
    """Arrow's default wraps them round outside of 1677-2262: the year 9999 became 1816."""
    data = int96((2932896, 3 * 3600 * 10**9), (0, 0), (-500000, 1000))

    [chunk] = chunks(data)

    assert [str(t) for t in chunk.table(0, 3)["t"]] == [
        "9999-12-31 03:00:00",
        "1970-01-01 00:00:00",
        "0601-01-18 00:00:00.000001",
    ]
    assert chunk.table(0, 3).schema.field("t").type == pa.timestamp("us")


@pytest.mark.parametrize("at_once", [2, 100])
def test_an_instant_that_microseconds_do_not_hold_is_a_bad_row(at_once, monkeypatch):
    """Its nanoseconds would be cut off, or its year wrap round, unnoticed."""
    monkeypatch.setattr(parquet_reader, "READ_ROWS", at_once)
    data = int96((0, 1000), (0, 1001), (9, 0), (2932896, 1), (0xFFFFFFF0 - JULIAN, 0), (7, 7000))

    found = chunks(data)

    assert [row["n"] for c in found for row in c.rows(0, len(c))] == [0, 2, 5]
    assert [b.position.at for c in found for b in c.bad] == [1, 3, 4]
    assert (
        "column 't': its INT96 timestamp is none of whole microseconds" in found[-1].bad[0].reason
    )
    assert [chunks(data, columns=("n",))[0].bad] == [()]


def test_instants_of_96_bits_are_found_inside_of_other_columns():
    """A list of structs of them, and a map: Hive's tables have both."""
    inner = pa.struct([("x", pa.timestamp("ns"))])
    table = pa.table(
        {
            "list": pa.array([[{"x": 1000}], None, [{"x": 2000}, {"x": 3}]], pa.list_(inner)),
            "map": pa.array(
                [[], [("k", 5)], [("k", 5000)]], pa.map_(pa.string(), inner.field(0).type)
            ),
        }
    )

    [chunk] = chunks(written(table, use_deprecated_int96_timestamps=True))

    assert (chunk.positions(), [b.position.at for b in chunk.bad]) == ([0], [1, 2])


NO_TEXT = pa.array([b"ok", b"\xff\xfe", b"\xc3\xa4", None, b"\xc3"]).view(pa.string())


@pytest.mark.parametrize(
    "column",
    [
        NO_TEXT,
        NO_TEXT.cast(pa.binary()).view(pa.string()).dictionary_encode(),
        NO_TEXT.cast(pa.binary()).cast(pa.binary_view()).view(pa.string_view()),
        pa.StructArray.from_arrays([NO_TEXT], ["s"]),
        pa.ListArray.from_arrays([0, 1, 2, 3, 4, 5], NO_TEXT),
        pytest.param(
            pa.ListArray.from_arrays([0, 1, 2, 3, 4, 5], NO_TEXT.dictionary_encode()),
            id="words in a list",
        ),
        pa.MapArray.from_arrays([0, 1, 2, 3, 4, 5], pa.array(list("abcde")), NO_TEXT),
    ],
    ids=lambda column: str(column.type)[:12],
)
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_string_that_is_none_is_one_bad_row(column, at_once, monkeypatch):
    """It ended the run in `rows`, and went on into the sink in `pyarrow`; now it is kept as bytes."""
    monkeypatch.setattr(parquet_reader, "READ_ROWS", at_once)
    found = chunks(written(pa.table({"n": range(5), "c": column})))

    assert [row["n"] for c in found for row in c.rows(0, len(c))] == [0, 2, 3]
    assert [at for c in found for at in c.positions()] == [0, 2, 3]
    assert [b.position.at for c in found for b in c.bad] == [1, 4]
    bad = next(b for c in found for b in c.bad)
    for chunk in found:
        chunk.table(0, len(chunk)).to_pandas()
    assert "column 'c': " in bad.reason
    assert json.loads(bad.position.raw)["n"] == 1
    assert b'{"base64": "//4="}' in bad.position.raw


@pytest.mark.parametrize(
    ("type_", "number"),
    [
        (pa.date32(), 2**31 - 1),
        (pa.date32(), -(2**31)),
        (pa.timestamp("ms"), 2**61),
        (pa.timestamp("us", "Europe/Berlin"), -(2**62)),
        (pa.duration("s"), 2**62),
    ],
    ids=str,
)
def test_a_row_that_python_cannot_hold_can_be_located_all_the_same(type_, number):
    """Looking for the place of a row that failed must not fail itself: that ended the run."""
    ints = pa.array([0, number], pa.int32() if type_.bit_width == 32 else pa.int64())
    [chunk] = chunks(written(pa.table({"d": ints.view(type_), "l": [[b"\xff"], [b"\xff"]]})))

    position = chunk.locate(1)

    assert position.at == 1
    assert json.loads(position.raw) == {"d": {str(type_): number}, "l": ["b'\\xff'"]}


def test_a_page_that_is_not_what_its_checksum_says_fails_its_shard():
    """A bit that flipped in storage is another value, unnoticed."""
    data = bytearray(
        written(
            pa.table({"n": range(1000)}),
            write_page_checksum=True,
            compression="none",
            use_dictionary=False,
        )
    )
    data[2000] ^= 1

    with pytest.raises(ShardFailedError, match="CRC checksum verification failed"):
        chunks(bytes(data))


def test_a_column_is_named_by_its_whole_name():
    """Arrow takes `a.b` for a part of the column `a`, too."""
    data = written(pa.table({"a": [{"b": 1, "c": 2}], "x": [3], "a.b": [4]}))

    assert rows(data, columns=("a.b",)) == [{"a.b": 4}]
    assert rows(data, columns=("a.b", "a")) == [{"a": {"b": 1, "c": 2}, "a.b": 4}]
    with pytest.raises(ShardFailedError, match=r"no column 'a\.c'"):
        rows(data, columns=("a.c",))
    assert [len(c) for c in chunks(data, columns=())] == [1]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("a", pa.array([1])),
        ("b.x", pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])),
    ],
)
def test_two_columns_of_one_name_are_refused(name, column):
    """A row has one value a name: the other would be gone. Columns that are not read do no harm."""
    table = pa.Table.from_arrays([pa.array([1]), column, pa.array([3])], ["a", name[0], "c"])

    with pytest.raises(ShardFailedError, match=f"two columns have the name '{name}'"):
        rows(written(table))
    assert rows(written(table), columns=("c",)) == [{"c": 3}]


def test_a_file_without_a_footer_is_not_counted():
    """This is how a part is checked before anyone relies on it."""
    data = a_file()

    assert count_rows(io.BytesIO(data)) == TOTAL
    with pytest.raises(pa.ArrowInvalid):
        count_rows(io.BytesIO(data[:-1]))
