"""What a Parquet part becomes: its row groups, and a schema that grows with its rows."""

import io
from functools import reduce

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats import parquet_part
from batchrunner.formats.columns import bare_table, rows_to_table
from batchrunner.formats.conform import conform
from batchrunner.formats.parquet_part import ParquetPart
from batchrunner.formats.parquet_reader import count_rows
from batchrunner.formats.parquet_types import storable
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import grown
from batchrunner.worker.part import CountedFile


class Sink:
    """A part in memory, and the schemas that it had settled."""

    def __init__(self, *, schema=None, compression="none"):
        self.file, self.proposed, self.restarts = io.BytesIO(), [], 0
        self._schema = schema
        self.part = ParquetPart(
            CountedFile(self.file),
            compression=compression,
            settle=self._settle,
            restart=self._restart,
        )

    def _settle(self, own):
        self.proposed.append(own)
        return own if self._schema is None else grown(self._schema, own)

    def _restart(self):
        self.restarts += 1
        written, self.file = self.file, io.BytesIO()
        return written, CountedFile(self.file)

    def written(self, *tables):
        for table in tables:
            self.part.append(table)
        self.part.close()
        return pq.ParquetFile(io.BytesIO(self.file.getvalue()))


def column(*values):
    return pa.table({"x": pa.array(values)})


@pytest.fixture
def tiny_groups(monkeypatch):
    """Each batch is a row group."""
    monkeypatch.setattr(parquet_part, "ROW_GROUP_BYTES", 1)


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=8), group_bytes=st.integers(1, 400))
def test_what_is_appended_comes_back_in_order(sizes, group_bytes):
    """However large row groups are."""
    tables, first = [], 0
    for size in sizes:
        tables.append(column(*range(first, first + size)))
        first += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_part, "ROW_GROUP_BYTES", group_bytes)
        sink = Sink()
        found = sink.written(*tables)

    assert found.read().column("x").to_pylist() == list(range(first))
    assert count_rows(io.BytesIO(sink.file.getvalue())) == first
    assert sink.restarts == 0


def test_small_batches_share_a_row_group_and_many_make_the_next(monkeypatch):
    """A row group per batch would make a file that is slow to read; one for all, slow to write."""
    monkeypatch.setattr(parquet_part, "ROW_GROUP_BYTES", 800)

    metadata = Sink().written(*[column(*range(10))] * 25).metadata

    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [100, 100, 50]


@pytest.mark.parametrize(
    ("asked", "found"),
    [("none", "UNCOMPRESSED"), ("snappy", "SNAPPY"), ("zstd", "ZSTD"), ("gzip", "GZIP")],
)
def test_a_part_is_compressed_as_asked(asked, found):
    """All that the spec allows."""
    metadata = Sink(compression=asked).written(column(1)).metadata

    assert metadata.row_group(0).column(0).compression == found


@pytest.mark.usefixtures("tiny_groups")
def test_a_schema_is_settled_once_for_rows_that_add_nothing():
    """It may cost a request."""
    sink = Sink(schema=pa.schema([("x", pa.int64()), ("y", pa.string())]))

    found = sink.written(column(1), column(2), column(None))

    assert sink.proposed == [pa.schema([("x", pa.int64())])]
    assert found.schema_arrow.types == [pa.int64(), pa.string()]
    assert found.read()["x"].to_pylist() == [1, 2, None]


ROWS = [
    {"id": 1, "meta": None},
    {"id": 2, "meta": {"src": "a"}},
    {"id": 3, "meta": {"src": "b", "tags": []}},
    {"id": 4, "meta": {"tags": [{"k": 1}]}, "late": "x"},
    {"id": 5, "meta": {}, "late": None},
]


@pytest.mark.parametrize("group_bytes", [1, 30, 1 << 20])
def test_what_rows_add_is_in_the_file_wherever_its_row_groups_end(monkeypatch, group_bytes):
    """A file has one schema, and the rows before are written already: they are written again."""
    monkeypatch.setattr(parquet_part, "ROW_GROUP_BYTES", group_bytes)
    sink = Sink()

    found = sink.written(*[rows_to_table([row]) for row in ROWS])

    whole = reduce(grown, [rows_to_table([row]).schema for row in ROWS])
    assert found.schema_arrow == whole
    assert found.read().to_pylist() == rows_to_table(ROWS).to_pylist()
    assert (sink.restarts > 0) == (group_bytes < 100)


def test_a_dictionary_reaches_all_of_its_words(monkeypatch):
    """The source had a few; with more than 128, indices of a byte made a part that no reader can read."""
    monkeypatch.setattr(parquet_part, "ROW_GROUP_BYTES", 300)
    few = pa.dictionary(pa.int8(), pa.string())
    texts = [f"word {n}" for n in range(300)]
    tables = [
        pa.table({"x": pa.array(texts[at : at + 50], few)}) for at in range(0, len(texts), 50)
    ]
    sink = Sink()

    found = sink.written(*tables).read()

    assert found["x"].to_pylist() == texts
    assert found.schema.field("x").type == pa.dictionary(pa.int32(), pa.string())
    assert Sink().written(tables[0]).read().schema.field("x").type == few


def test_a_part_without_rows_has_the_schema_of_the_others():
    """A reader of the folder sees the same columns in every file."""
    schema = pa.schema([("x", pa.float64())])

    found = Sink(schema=schema).written()

    assert (found.schema_arrow, found.metadata.num_rows) == (schema, 0)


@pytest.mark.usefixtures("tiny_groups")
def test_rows_that_do_not_fit_are_refused_with_their_column():
    """Also in a later row group, when the schema stands in the file already."""
    sink = Sink()
    sink.part.append(column(1))

    with pytest.raises(SchemaError, match="column 'x': string here, but int64"):
        sink.part.append(column("a"))


def test_rows_without_columns_are_rows_of_nulls_where_columns_are_known():
    """And nowhere else: a file without columns has no rows."""
    found = Sink(schema=pa.schema([("x", pa.int8())])).written(bare_table(2))

    assert found.read().to_pylist() == [{"x": None}, {"x": None}]
    with pytest.raises(SchemaError, match="rows without any column"):
        Sink().written(bare_table(2))


def test_an_object_that_is_always_empty_has_no_type():
    """Parquet has none for it; the reader of the error reads what to declare."""
    with pytest.raises(SchemaError, match=r"column 'x': Parquet has no type for struct<>"):
        Sink().written(rows_to_table([{"x": {}}]))


@pytest.mark.parametrize(
    "outer", [lambda kind: kind, pa.list_, lambda kind: pa.map_(pa.string(), kind)]
)
def test_fields_that_arrow_keeps_as_views_are_written(outer):
    """Polars hands its text over so, and Arrow cannot write it inside of objects: chat turns, say."""
    kind = outer(pa.struct([("role", pa.string_view()), ("tags", pa.list_(pa.binary_view()))]))
    turn = {"role": "user", "tags": [b"a"]}
    if pa.types.is_struct(kind):
        value = turn
    else:
        value = [turn] if pa.types.is_list(kind) else [("k", turn)]
    table = pa.table({"x": pa.chunked_array([pa.array([value, None], kind)] * 2)})

    found = Sink().written(conform(table, storable(table.schema))).read()

    assert found["x"].to_pylist() == [value, None, value, None]
