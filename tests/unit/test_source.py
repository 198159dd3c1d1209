"""Which files a source is: decided by listings, the same on a disk and in a bucket."""

import os
import uuid

import pytest

from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.overlap import check_apart
from batchrunner.driver.source_files import format_by_names, list_source
from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.registry import FileKind
from batchrunner.spec import SourceSpec
from batchrunner.testing.memory import MemoryStorage

DAYS = ["day.2024-01.jsonl", "dayX2024-01.jsonl"]
KEYS = [
    "a.jsonl",
    "a1.jsonl",
    "b.jsonl",
    "c.jsonl.gz",
    *DAYS,
    "notes.txt",
    "sub/a.jsonl",
    "sub/deep/a.jsonl",
    "sub/deep/er/b.jsonl",
    "sub2/a.jsonl",
    "x[1].jsonl",
    ".hidden.jsonl",
    "_x.jsonl",
    "_tmp/a.jsonl",
    "sub/.git/a.jsonl",
    "sub/_delta/a.jsonl",
]


@pytest.fixture
def bucket():
    """A store of this test's own."""
    return MemoryStorage(f"{uuid.uuid4().hex}/data")


def fill(storage, keys):
    for key in keys:
        storage.put(key, b'{"a":1}\n')


def found(storage, *places, **fields):
    """Return the keys of the files of a source, in its order."""
    uris = [f"{storage.uri}/{place}" if place else storage.uri for place in places]
    source = SourceSpec(uri=uris[0] if len(uris) == 1 else uris, **fields)
    return [file.uri.removeprefix(f"{storage.uri}/") for file in list_source(source).files]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("?*.jsonl", ["a.jsonl", "a1.jsonl", "b.jsonl", *DAYS, "x[1].jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("a?.jsonl", ["a1.jsonl"]),
        ("[ab].jsonl", ["a.jsonl", "b.jsonl"]),
        ("[!a].jsonl", ["b.jsonl"]),
        ("[a-a]*.jsonl", ["a.jsonl", "a1.jsonl"]),
        ("a[0-9].jsonl", ["a1.jsonl"]),
        ("*[]]*.jsonl", ["x[1].jsonl"]),
        ("*.2024-??.jsonl", ["day.2024-01.jsonl"]),
        ("*.jsonl*", ["a.jsonl", "a1.jsonl", "b.jsonl", "c.jsonl.gz", *DAYS, "x[1].jsonl"]),
        ("sub*/a.jsonl", ["sub/a.jsonl", "sub2/a.jsonl"]),
        ("sub/*/a.jsonl", ["sub/deep/a.jsonl"]),
        ("sub/**", ["sub/a.jsonl", "sub/deep/a.jsonl", "sub/deep/er/b.jsonl"]),
        ("sub/**/b.jsonl", ["sub/deep/er/b.jsonl"]),
        ("sub/**/a.jsonl", ["sub/a.jsonl", "sub/deep/a.jsonl"]),
        ("**/deep/**", ["sub/deep/a.jsonl", "sub/deep/er/b.jsonl"]),
    ],
)  # fmt: skip
def test_a_glob_gives_the_files_that_it_matches(bucket, pattern, expected):
    """A star stops at a slash, two do not; a dot is a dot; hidden names are never data."""
    fill(bucket, KEYS)

    assert found(bucket, pattern) == expected


def test_a_folder_gives_its_data_and_that_of_its_folders(bucket):
    """What begins with a dot or an underscore is bookkeeping: also ours."""
    fill(bucket, KEYS)

    assert found(bucket, "") == [
        "a.jsonl", "a1.jsonl", "b.jsonl", "c.jsonl.gz", *DAYS, "sub/a.jsonl",
        "sub/deep/a.jsonl", "sub/deep/er/b.jsonl", "sub2/a.jsonl", "x[1].jsonl",
    ]  # fmt: skip
    assert found(bucket, "sub") == ["sub/a.jsonl", "sub/deep/a.jsonl", "sub/deep/er/b.jsonl"]


def test_a_file_is_itself_also_when_its_name_looks_like_a_glob(bucket):
    """Or is hidden: a user who names a file wants that file."""
    fill(bucket, KEYS)

    for key in ("x[1].jsonl", ".hidden.jsonl", "_tmp/a.jsonl"):
        assert found(bucket, key) == [key]


def test_a_hidden_folder_may_be_named(bucket):
    """What is hidden below it stays so."""
    fill(bucket, ["_raw/a.jsonl", "_raw/_b.jsonl", "_raw/c/d.jsonl"])

    assert found(bucket, "_raw") == ["_raw/a.jsonl", "_raw/c/d.jsonl"]
    assert found(bucket, "_raw/*.jsonl") == ["_raw/a.jsonl"]


def test_places_keep_their_order_and_a_file_counts_once(bucket):
    """The order of the parts is that of the source, as it was written down."""
    fill(bucket, ["b/2.jsonl", "b/1.jsonl", "a/1.jsonl"])

    assert found(bucket, "b/2.jsonl", "b", "a", "*/1.jsonl") == [
        "b/2.jsonl",
        "b/1.jsonl",
        "a/1.jsonl",
    ]


def test_what_a_listing_says_of_a_file_is_kept(bucket):
    """Its size and identity are what reads are pinned to."""
    bucket.put("a.jsonl.zst", b"12345")
    entry = bucket.head("a.jsonl.zst")

    assert list_source(SourceSpec(uri=bucket.uri)).files == (
        SourceFile(f"{bucket.uri}/a.jsonl.zst", 5, entry.identity, FileKind("jsonl", "zst")),
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", FileKind("jsonl")),
        ("a.ndjson", FileKind("jsonl")),
        ("A.JSONL", FileKind("jsonl")),
        ("a.jsonl.gz", FileKind("jsonl", "gz")),
        ("a.jsonl.zst", FileKind("jsonl", "zst")),
        ("a.parquet", FileKind("parquet")),
        ("a.pq", FileKind("parquet")),
    ],
)
def test_the_format_follows_from_the_name(bucket, name, kind):
    """So the spec need not."""
    bucket.put(name, b"x")

    for place in ("", f"/{name}", "/*"):
        assert [f.kind for f in list_source(SourceSpec(uri=bucket.uri + place)).files] == [kind]


@pytest.mark.parametrize(
    ("name", "declared", "kind"),
    [
        ("data", "jsonl", FileKind("jsonl")),
        ("data.json", "jsonl", FileKind("jsonl")),
        ("data.txt.gz", "jsonl", FileKind("jsonl", "gz")),
        ("part-0-c000.snappy", "parquet", FileKind("parquet")),
    ],
)
def test_a_declared_format_stands_in_for_the_name(bucket, name, declared, kind):
    """For a file that is named, and for those that a glob matches."""
    bucket.put(name, b"x")

    for place in (name, "*"):
        uri = f"{bucket.uri}/{place}"
        assert [f.kind for f in list_source(SourceSpec(uri=uri, format=declared)).files] == [kind]


def test_a_named_file_of_unknown_format_asks_for_it(bucket):
    """To guess would be to read garbage."""
    bucket.put("data.xyz", b"x")

    with pytest.raises(InvalidSpecError, match=r"data\.xyz: .* give source\.format"):
        found(bucket, "data.xyz")


def test_a_name_that_contradicts_the_format_is_not_read(bucket):
    """A glob passes it over; naming it is refused."""
    fill(bucket, ["a.jsonl", "b.parquet", "c.parquet.gz"])

    assert found(bucket, "*", format="jsonl") == ["a.jsonl"]
    assert found(bucket, "", format="jsonl") == ["a.jsonl"]
    with pytest.raises(InvalidSpecError):
        found(bucket, "b.parquet", format="jsonl")
    with pytest.raises(InvalidSpecError):
        found(bucket, "c.parquet.gz")


def test_two_formats_in_one_source_are_refused_by_name(bucket):
    """One of them was not meant."""
    fill(bucket, ["a.jsonl", "b.parquet"])

    with pytest.raises(InvalidSpecError, match=r"mixes formats: .*a\.jsonl and .*b\.parquet"):
        found(bucket, "")
    with pytest.raises(InvalidSpecError, match="mixes formats"):
        found(bucket, "a.jsonl", "b.parquet")


def test_notes_beside_the_data_are_no_data(bucket):
    """A folder of JSON lines with a `notes.txt` was read before text was a format, and still is."""
    fill(bucket, ["a.jsonl", "notes.txt", "sub/LICENSE.txt"])

    assert found(bucket, "") == found(bucket, "**") == ["a.jsonl"]
    assert found(bucket, "", format="text") == ["notes.txt", "sub/LICENSE.txt"]
    assert found(bucket, "*.txt") == ["notes.txt"]
    with pytest.raises(InvalidSpecError, match="mixes formats"):
        found(bucket, "a.jsonl", "notes.txt")


@pytest.mark.parametrize("place", ["nothing", "nothing.jsonl", "no*.jsonl", "empty", "a.jsonl/x"])
def test_a_place_without_files_is_named(bucket, place):
    """A typo must not become a batch over nothing, also when other places have files."""
    fill(bucket, ["a.jsonl", "empty/readme.md"])

    with pytest.raises(ObjectNotFoundError, match="there is no such file"):
        found(bucket, "a.jsonl", place)


def test_files_on_a_disk_are_found_as_in_a_bucket(tmp_path, monkeypatch):
    """By an absolute path, a relative one, or a glob of either."""
    monkeypatch.chdir(tmp_path)
    for key in ("in/a.jsonl", "in/sub/b.jsonl", "in/.c.jsonl"):
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_text("{}\n")

    for uri in ("in", str(tmp_path / "in"), "in/**", "in/**/*.jsonl", f"file://{tmp_path}/in"):
        uris = [file.uri for file in list_source(SourceSpec(uri=uri)).files]
        assert uris == [str(tmp_path / "in/a.jsonl"), str(tmp_path / "in/sub/b.jsonl")]


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("/data", "/data"),
        ("/data", "/data/out"),
        ("/data", "/data/a/b"),
        ("/data/", "/data/out"),
        ("/", "/out"),
        ("/data/*", "/data"),
        ("/data/*.jsonl", "/data"),
        ("/data/*/*", "/data/out"),
        ("/data/**", "/data/out"),
        ("/data/**/*.parquet", "/data/out/deep"),
        ("/data/part-*", "/data"),
        ("s3://bucket/data", "s3://bucket/data/out"),
    ],
)
def test_a_sink_that_the_source_would_read_is_refused(source, sink):
    """The next run would take the parts of this one for new files."""
    with pytest.raises(InvalidSpecError, match=r"lies in the source .*; write somewhere else"):
        check_apart(SourceSpec(uri=["/other", source]), sink)


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("/data", "/data2"),
        ("/data", "/out"),
        ("/data/in", "/data"),
        ("/data/a.jsonl", "/data"),
        ("/data/*.jsonl", "/data/out"),
        ("/data/in-*", "/data"),
        ("/data", "/data/_out"),
        ("/data", "/data/.out"),
        ("s3://bucket/data", "s3://bucket2/data/out"),
        ("s3://bucket/data", "/data"),
    ],
)
def test_a_sink_beside_the_source_is_fine(source, sink):
    """People keep things together."""
    check_apart(SourceSpec(uri=source), sink)


@pytest.mark.parametrize(
    ("uri", "declared"),
    [
        ("in/*.jsonl", "jsonl"),
        (["in", "a.jsonl", "b/*.ndjson.gz"], "jsonl"),
        ("s3://b/**/x-?.parquet", "parquet"),
        ("in", None),
        ("in/*", None),
        (["a.jsonl", "b.parquet"], None),
    ],
)
def test_the_format_is_found_without_a_listing_where_the_names_say_it(uri, declared):
    """What a folder holds is not known, and of two formats the listing will complain."""
    assert format_by_names(SourceSpec(uri=uri)) == declared


def test_a_name_that_is_no_utf8_is_refused_by_name_and_a_glob_leaves_it_out(tmp_path):
    """A plan is text: the run would fail once it is stored."""
    (tmp_path / "a.jsonl").write_text("{}\n")
    try:
        (tmp_path / os.fsdecode(b"x\xff.jsonl")).write_text("{}\n")
    except OSError:
        pytest.skip("this file system holds only names in UTF-8")

    with pytest.raises(InvalidSpecError, match=r"x\\udcff\.jsonl: its name is no UTF-8; rename"):
        list_source(SourceSpec(uri=str(tmp_path)))
    files = list_source(SourceSpec(uri=f"{tmp_path}/[!x]*.jsonl")).files
    assert [file.uri for file in files] == [f"{tmp_path}/a.jsonl"]
