"""Every place is one absolute URI, whichever way it was written."""

import re
from pathlib import Path

import pytest

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, SinkSpec, SourceSpec


@pytest.mark.parametrize(
    ("written", "absolute"),
    [
        ("/data/in", "/data/in"),
        ("/data/in/", "/data/in"),
        ("/data//x/../in/.", "/data/in"),
        ("//data/in", "/data/in"),
        ("/", "/"),
        ("in", "CWD/in"),
        ("./in/", "CWD/in"),
        ("../in", "PARENT/in"),
        ("12:30.jsonl", "CWD/12:30.jsonl"),
        ("~/in", "HOME/in"),
        ("file:///data/in", "/data/in"),
        ("file://localhost/data/in", "/data/in"),
        ("file:/data/in", "/data/in"),
        ("FILE:///data/a%20b", "/data/a b"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket//a//b", "s3://bucket/a/b"),
        ("S3://bucket/A", "s3://bucket/A"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        (
            "s3://arn:aws:s3:eu-west-1:1234:accesspoint/name/a",
            "s3://arn:aws:s3:eu-west-1:1234:accesspoint/name/a",
        ),
        ("memory://a/b/", "memory://a/b"),
    ],
)
def test_a_place_is_made_absolute(tmp_path, monkeypatch, written, absolute):
    """A resumed run may start from elsewhere, and a worker certainly does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    places = {"CWD": tmp_path, "PARENT": tmp_path.parent, "HOME": "/home/someone"}
    expected = re.sub("CWD|PARENT|HOME", lambda name: str(places[name[0]]), absolute)

    assert expected == SourceSpec(uri=written).uri == SinkSpec(uri=written).uri
    assert expected == BatchSpec(source="x", sink="y", checkpoint_dir=written).checkpoint_uri
    assert expected == SourceSpec(uri=expected).uri


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("gs://bucket/x", "use a local path, file:// or s3://"),
        ("https://host/x", "use a local path, file:// or s3://"),
        ("s3://key:secret@bucket/x", "must not hold credentials"),
        ("s3://token@bucket", "must not hold credentials"),
        ("s3://key:sec/ret@bucket/x", "must not hold credentials"),
        ("s3://key:secret%40bucket", "must not hold credentials"),
        ("memory://u:p@x", "must not hold credentials"),
        ("s3://", "needs the name of a bucket"),
        ("s3:///key", "needs the name of a bucket"),
        ("s3://buc*et/x", "needs the name of a bucket|must be one place"),
        ("s3:/bucket/x", "needs two slashes"),
        ("s3:bucket", "needs two slashes"),
        ("s3://bucket/a/../b", 'must not go through "."'),
        ("file://host/x", "needs an absolute path after file://"),
        ("file:///data/%00x", "without a zero byte"),
        ("file:x", "needs an absolute path after file://"),
        ("\\s3://bucket/x", "use a local path, file:// or s3://"),
        ("", "must be a path or a URI"),
        (" ", "must be a path or a URI"),
        (" s3://bucket", "without spaces around it"),
        ("a\nb", "control characters"),
        ("a\0b", "control characters"),
    ],
)
def test_a_place_that_cannot_work_is_refused_without_printing_it(written, says):
    """The value may hold a secret, or come from a variable that does."""
    for make in (SourceSpec, SinkSpec):
        with pytest.raises(InvalidSpecError, match=says) as caught:
            make(uri=written)
        assert len(written) < 7 or written not in str(caught.value)


@pytest.mark.parametrize("uri", ["/in/*.jsonl", "/in/?.jsonl", "/in/[ab].jsonl", "s3://b/**/x"])
def test_a_glob_works_in_the_source_only(uri):
    """One may read from many places, but writes to one."""
    assert uri == SourceSpec(uri=uri).uri
    with pytest.raises(InvalidSpecError, match="must be one place"):
        SinkSpec(uri=uri)
    with pytest.raises(InvalidSpecError, match="checkpoint_dir: must be one place"):
        BatchSpec(source="in", sink="out", checkpoint_dir=uri)


def test_a_glob_in_the_name_of_the_current_directory_is_no_glob_of_ours(tmp_path, monkeypatch):
    """A relative sink works wherever one stands."""
    (tmp_path / "a[1]").mkdir()
    monkeypatch.chdir(tmp_path / "a[1]")

    assert str(tmp_path / "a[1]/out") == SinkSpec(uri="out").uri


def test_a_directory_that_is_gone_is_an_invalid_spec(tmp_path, monkeypatch):
    """Nothing but an InvalidSpecError comes out of a spec."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    with pytest.raises(InvalidSpecError, match="cannot be made an absolute path"):
        SinkSpec(uri="out")


def test_a_path_object_is_a_path():
    """In Python, paths are rarely strings."""
    spec = BatchSpec(source=Path("/in"), sink=Path("/out"))

    assert ("/in", "/out") == (spec.source.uri, spec.sink.uri)
    assert ("/a", "/b") == SourceSpec(uri=[Path("/a"), "/b"]).uri


def test_a_list_of_nothing_is_no_source():
    """A list that a script filled may be empty; a run over nothing would look like success."""
    with pytest.raises(InvalidSpecError, match=r"source\.uri: must not be empty"):
        BatchSpec(source=[], sink="out")
