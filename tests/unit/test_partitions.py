"""Columns in the names of folders: the same as Ray Data and pyarrow find, whatever is named."""

import pytest

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.partitions import partition_columns

FILE = "/t/date=2026-01-01/lang=de/a.parquet"
BOTH = (("date", "2026-01-01"), ("lang", "de"))


@pytest.mark.parametrize(
    "root",
    [
        "/t",
        "/t/*",
        "/t/**/*.parquet",
        "/t/date=*/**",
        "/t/date=2026-01-01",
        "/t/date=2026-01-01/lang=de",
        "/t/date=2026-01-01/lang=de/*.parquet",
        "/t/date=2026-01-01/*/*",
        FILE,
        "/",
    ],
)
def test_the_columns_do_not_depend_on_how_much_of_the_table_is_named(root):
    """One day of a table, or one file of it, has the columns that all of the table has."""
    assert partition_columns(FILE, (root,)) == BOTH


def test_of_two_roots_the_outermost_counts():
    """Otherwise the order of the URIs would decide the columns."""
    file = "/t/k=1/sub/j=2/a.jsonl"

    assert partition_columns(file, ("/t/k=1/sub",)) == (("j", "2"),)
    for roots in (("/t", "/t/k=1/sub"), ("/t/k=1/sub", "/t"), ("/other", "/t", "/t2")):
        assert partition_columns(file, roots) == (("k", "1"), ("j", "2"))


def test_folders_above_the_source_are_no_columns():
    """But for those right above it, which are part of a table that the source is a piece of."""
    assert partition_columns("/lr=0.1/data/in/k=1/a.jsonl", ("/lr=0.1/data/in",)) == (("k", "1"),)
    assert partition_columns("/lr=0.1/data/a.jsonl", ("/lr=0.1/data/a.jsonl",)) == ()


def test_a_file_name_is_no_column():
    """Only folders are."""
    assert partition_columns("/t/k=1.parquet", ("/t",)) == ()
    assert partition_columns("/t/k=[1].parquet", ("/t/k=[1].parquet",)) == ()


@pytest.mark.parametrize(
    ("folder", "column"),
    [
        ("a=x%2Fy", ("a", "x/y")),
        ("a%20b=1", ("a b", "1")),
        ("a=b=c", ("a", "b=c")),
        ("a=__HIVE_DEFAULT_PARTITION__", ("a", None)),
        ("a=", ("a", "")),
        ("a=x+y", ("a", "x+y")),
        ("a=%zz", ("a", "%zz")),
        ("a=%ff", ("a", "%ff")),
        ("a=%C3%A9", ("a", "é")),
    ],
)
def test_names_and_values_are_decoded_as_pyarrow_does(folder, column):
    """Writers percent-encode what a path cannot hold."""
    assert partition_columns(f"/t/{folder}/a.parquet", ("/t",)) == (column,)


@pytest.mark.parametrize("folder", ["plain", "=1", "="])
def test_a_folder_without_a_name_and_an_equals_sign_is_no_column(folder):
    """A column needs a name."""
    assert partition_columns(f"/t/{folder}/a.parquet", ("/t",)) == ()


def test_a_bucket_is_as_a_disk():
    """The same table, the same columns."""
    uri = "s3://bucket/t/date=2026-01-01/a.parquet"

    for root in ("s3://bucket", "s3://bucket/t", "s3://bucket/t/*/*", uri):
        assert partition_columns(uri, (root,)) == (("date", "2026-01-01"),)


def test_a_name_that_stands_twice_is_refused():
    """Ray Data takes the inner value and pyarrow the outer one: which was meant cannot be decided."""
    with pytest.raises(InvalidSpecError, match=r"'k' twice.*source\.partitioning: none"):
        partition_columns("/t/k=1/k=2/a.parquet", ("/t",))
