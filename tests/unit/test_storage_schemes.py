import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.storage import locate, open_storage
from batchrunner.testing import memory


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("/data/out", "/data/out"),
        ("/data//out/../in/", "/data/in"),
        ("file:///data/out/", "/data/out"),
        ("file://localhost/data/a%20b%2Bc", "/data/a b+c"),
        ("/data/a%20b", "/data/a%20b"),
        ("/", "/"),
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket//a///b/", "s3://bucket/a/b"),
        ("S3://bucket", "s3://bucket"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("memory://name/a/", "memory://name/a"),
    ],
)
def test_one_place_has_one_uri_however_it_is_written(uri, root):
    """Two spellings of a sink must not pass for two sinks."""
    assert open_storage(uri).uri == root


def test_a_relative_path_and_a_home_are_made_absolute(monkeypatch, tmp_path):
    """Workers have other working directories than the driver."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert open_storage("out").uri == str(tmp_path / "out")
    assert open_storage("~/out").uri == str(tmp_path / "home/out")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gs://bucket/x", r"is not supported \(gs://\).*s3://"),
        ("", "empty"),
        ("s3://", "bucket"),
        ("s3:///key", "bucket"),
        ("s3://bucket/a/../b", r'"\.\."'),
        ("file://host/share", "absolute path.*file:///"),
        ("s3://AKIA:hunter2@bucket/x", "storage_options"),
    ],
)
def test_what_cannot_be_opened_says_what_can(uri, says):
    """Before anything is started, and without repeating a password."""
    with pytest.raises(InvalidSpecError, match=says) as caught:
        open_storage(uri)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("/data/in/a b.jsonl", "/", "data/in/a b.jsonl"),
        ("file:///data/a%20b", "/", "data/a b"),
        ("s3://bucket/in//a.jsonl", "s3://bucket", "in//a.jsonl"),
        ("memory://name/in/a", "memory://name", "in/a"),
    ],
)
def test_an_object_is_located_in_the_storage_of_its_container(uri, root, key):
    """A bucket's keys are kept to the letter; a path is a path."""
    storage, found = locate(uri)

    assert (storage.uri, found) == (root, key)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "/", "memory://name"])
def test_a_container_is_not_an_object(uri):
    """There is nothing in it to read."""
    with pytest.raises(InvalidSpecError, match="object"):
        locate(uri)


def test_a_located_file_can_be_read(tmp_path):
    """What workers do with every shard."""
    (tmp_path / "in.jsonl").write_bytes(b"1\n")

    storage, key = locate(str(tmp_path / "in.jsonl"))

    with storage.open(storage.head(key)) as file:
        assert file.read() == b"1\n"


def test_a_container_is_opened_once_for_each_set_of_options():
    """5,000 shards of one bucket share its connection; other credentials do not."""
    mine = {"key": "a", "client_kwargs": {"region_name": "r", "verify": False}}
    again = {"client_kwargs": {"verify": False, "region_name": "r"}, "key": "a"}
    start = time.process_time()
    found = {id(locate(f"s3://bucket/{n}", storage_options=mine)[0]) for n in range(2_000)}
    spent = time.process_time() - start

    assert found == {id(locate("s3://bucket/x", storage_options=again)[0])}
    assert found != {id(locate("s3://bucket/x", storage_options={"key": "b"})[0])}
    assert found != {id(locate("s3://bucket/x")[0])}
    assert spent < 5


def test_memory_is_shared_by_its_name():
    """Driver and worker of one process meet there."""
    open_storage("memory://schemes/a").put("b", b"1")

    assert open_storage("memory://schemes").get("a/b") == b"1"
    assert isinstance(open_storage("memory://schemes"), memory.MemoryStorage)


def test_opening_loads_nothing_heavy():
    """`validate` has half a second for everything; s3fs alone takes more."""
    heavy = ["s3fs", "fsspec", "botocore", "aiohttp", "pyarrow", "pandas", "ray"]
    code = (
        "import sys; from batchrunner.storage import open_storage; "
        "open_storage('/x'); open_storage('s3://b/p'); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    root = Path(sys.modules["batchrunner"].__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_a_missing_connector_comes_with_the_line_that_installs_it(monkeypatch):
    """Found when it is first needed, which is before anything is computed."""
    monkeypatch.setitem(sys.modules, "s3fs", None)

    with pytest.raises(CannotStartError, match=r"pip install 's3fs"):
        open_storage("s3://bucket", storage_options={"key": "no such library"}).head("x")


def test_an_option_that_s3fs_does_not_know_is_named():
    """A misspelt option must not be ignored: it may be the endpoint."""
    storage = open_storage("s3://bucket", storage_options={"endpont_url": "x", "secret": "hunter2"})

    with pytest.raises(InvalidSpecError, match="endpont_url") as caught:
        storage.head("x")

    assert "hunter2" not in str(caught.value)
