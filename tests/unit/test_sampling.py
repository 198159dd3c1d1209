"""A sample of a source: as much as asked for, from all over it, the same each time, by reading little."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.driver.plan import Slicer, first_generation
from batchrunner.driver.sample import Sample
from batchrunner.driver.source_files import list_source, opener_of
from batchrunner.errors import InvalidSpecError
from batchrunner.formats.registry import file_kind, format_named
from batchrunner.shard import Slicing
from builders import a_spec

KINDS = ["jsonl", "jsonl.gz", "parquet"]


def write(path, rows, *, pad=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = [{"id": n, "text": "x" * pad} for n in rows]
    if path.name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(content), path, row_group_size=50)
        return
    text = "".join(json.dumps(row) + "\n" for row in content).encode()
    path.write_bytes(gzip.compress(text) if path.name.endswith("gz") else text)


def a_source(folder, kind, *, files=3, each=200, pad=20):
    for number in range(files):
        write(
            folder / f"in/{number:05d}.{kind}", range(number * each, (number + 1) * each), pad=pad
        )
    return a_spec(folder)


def sample_of(spec, amount, *, opener=None):
    """The shards of a plan of the sample, and the ids of the rows in them, read from the files."""
    listing = list_source(spec.source).read_once()
    slicer = Slicer(opener or opener_of(spec), Sample.of(amount))
    shards = first_generation(spec, listing.files, slicer).shards
    return shards, [row["id"] for shard in shards for row in rows_of(shard)]


def rows_of(shard):
    (shard,) = shard.slices
    kind = file_kind(shard.uri)
    with Path(shard.uri).open("rb") as file:
        chunks = format_named(kind.format).read(
            file, shard, compression=kind.compression, columns=None, partition=()
        )
        return [row for chunk in chunks for row in chunk.rows(0, len(chunk))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 31, 100, 599])
def test_a_number_of_rows_is_exact_and_from_all_over_the_source(tmp_path, kind, count):
    """The first rows are often all alike: one day, one language."""
    spec = a_source(tmp_path, kind)
    shards, ids = sample_of(spec, count)

    assert count == len(ids) == len(set(ids)) == sum(shard.rows for shard in shards)
    assert sorted(ids) == ids
    assert set(ids) <= set(range(600))
    if count > 30:
        assert {0, 1, 2} == {n // 200 for n in ids}
    assert (shards, ids) == sample_of(spec, count)


@pytest.mark.parametrize("kind", KINDS)
def test_more_rows_than_there_are_is_all_of_them_once(tmp_path, kind):
    """A tiny source is no reason to fail."""
    _, ids = sample_of(a_source(tmp_path, kind, files=2, each=60), 1000)

    assert list(range(120)) == ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_is_about_that_share(tmp_path, kind):
    """One percent for a feeling of what all of it takes."""
    spec = a_source(tmp_path, kind, each=2000)

    assert 300 <= len(sample_of(spec, "10%")[1]) <= 1200
    assert list(range(6000)) == sample_of(spec, 1.0)[1]
    assert 1 <= len(sample_of(spec, "0.00001")[1]) <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_of_many_files_few_are_opened(tmp_path, kind):
    """A source of a hundred thousand files is not opened to try ten rows."""
    spec = a_source(tmp_path, kind, files=300, each=20)
    opened, really = [], opener_of(spec)

    def opener(file):
        opened.append(file.uri)
        return really(file)

    _, ids = sample_of(spec, 40, opener=opener)

    assert 40 == len(ids)
    assert len(set(opened)) <= 33
    assert 30 <= len({n // 20 for n in ids})


def test_a_share_of_long_rows_is_not_a_row_of_each_place(tmp_path):
    """One percent of 200 rows is two, also where each is longer than its place."""
    _, ids = sample_of(a_source(tmp_path, "jsonl", files=1, each=200, pad=8192), "1%")

    assert 2 <= len(ids) <= 3


def test_of_many_small_files_a_share_is_of_files(tmp_path):
    """Ten percent of a thousand files of one row are a hundred rows."""
    _, ids = sample_of(a_source(tmp_path, "jsonl", files=500, each=1), "10%")

    assert 40 <= len(ids) <= 60


def test_a_large_file_is_read_where_the_rows_are(tmp_path):
    """Of 48 MiB, the bytes around three places."""
    spec = a_source(tmp_path, "jsonl", files=1, each=3000, pad=1 << 14)
    read, really = [], opener_of(spec)

    class Counted:
        def __init__(self, file):
            self._file = file

        def read(self, size=-1):
            data = self._file.read(size)
            read.append(len(data))
            return data

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

    def opener(file):
        return Counted(really(file))

    _, ids = sample_of(spec, 3, opener=opener)

    assert 3 == len(ids)
    assert [0, 1, 2] == [n // 1000 for n in ids]
    assert 0 < sum(read) <= 12 << 20


def test_rows_that_cannot_be_read_count_as_rows(tmp_path):
    """They become dead letters of the trial: that is what it is for."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"id": 1}\nnonsense\n\n{"id": 2}\n')
    shards, ids = sample_of(a_spec(tmp_path), 3)

    assert [1, 2] == ids
    assert 3 == sum(shard.rows for shard in shards)


def test_a_damaged_file_is_left_to_the_worker_that_reports_it(tmp_path):
    """The trial shows the damage, as the run will."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"PAR1 nonsense PAR1")
    spec = a_spec(tmp_path)
    listing = list_source(spec.source)
    for amount in ("10%", 10):
        slicer = Slicer(opener_of(spec), Sample.of(amount))
        (shard,) = first_generation(spec, listing.files, slicer).shards
        assert Slicing.FILE is shard.first.slicing


@pytest.mark.parametrize(
    "text", ["0", "-1", "0%", "101%", "1.5", "many", "", "1e3", "0.0", "nan", "1_0"]
)
def test_an_amount_that_is_none_is_refused(text):
    """No guess at what `1.5` means."""
    with pytest.raises(
        InvalidSpecError, match="a sample is a number of rows, such as 100, or a share"
    ):
        Sample.of(text)


def test_one_is_a_row_and_one_point_zero_is_all():
    """The two that could be taken for each other."""
    assert Sample(rows=1) == Sample.of("1") == Sample.of(1)
    assert Sample(share=1.0) == Sample.of("1.0") == Sample.of(1.0) == Sample.of("100%")


@settings(max_examples=60, deadline=60_000)
@given(
    lengths=st.lists(st.lists(st.integers(0, 300), max_size=30), min_size=1, max_size=6),
    count=st.integers(1, 80),
)
def test_whatever_the_rows_are_like_the_number_is_exact(tmp_path_factory, lengths, count):
    """Long rows beside short ones, empty files, blank lines."""
    folder = tmp_path_factory.mktemp("s")
    (folder / "in").mkdir()
    number = 0
    for index, of_file in enumerate(lengths):
        lines = []
        for length in of_file:
            lines.append(json.dumps({"id": number, "t": "x" * length}) + "\n" * (1 + length % 2))
            number += 1
        (folder / f"in/{index}.jsonl").write_text("".join(lines))
    _, ids = sample_of(a_spec(folder), count)

    assert min(count, number) == len(ids) == len(set(ids))
