"""A model is fetched once for each node, completely or not at all, and anew when it has changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batchrunner.capabilities.files import local_copy
from buckets import Bucket
from patience import PATIENCE

WORKERS = 3


class Counting(SimpleHTTPRequestHandler):
    """Serves a folder, as soon as all workers have asked what it has; notes each file that was fetched."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.server.looked.release()
        super().do_HEAD()

    def do_GET(self):
        self.server.asked.append(self.path)
        for _ in range(WORKERS if len(self.server.asked) == 1 else 0):
            assert self.server.looked.acquire(timeout=PATIENCE)
        super().do_GET()

    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Counting, directory=str(folder)))
    server.asked, server.looked = [], threading.Semaphore(0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


FETCH = "import sys; from batchrunner.capabilities.files import local_copy; print(local_copy(sys.argv[1]))"


def test_workers_of_one_node_fetch_a_model_once(tmp_path):
    """At the same time, from a real server, which counts."""
    (tmp_path / "models").mkdir()
    weights = os.urandom(1 << 20)
    (tmp_path / "models/m.onnx").write_bytes(weights)
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}

    with served(tmp_path / "models") as server:
        uri = f"http://127.0.0.1:{server.server_port}/m.onnx"
        line = [sys.executable, "-c", FETCH, uri]
        started = [
            subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True) for _ in "abc"
        ]
        paths = {process.communicate()[0].strip() for process in started}

    [path] = paths
    assert Path(path).read_bytes() == weights
    assert server.asked.count("/m.onnx") == 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A model of two files in a storage of fsspec's, and a cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "model/nested").mkdir(parents=True)
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/nested/weights.bin").write_bytes(b"first")
    return tmp_path / "model"


def test_a_folder_is_fetched_as_it_is_and_again_when_a_file_of_it_changed(folder):
    """The old copy stays: a worker may have it open."""
    before = Path(local_copy(folder.as_uri()))
    assert local_copy(folder.as_uri()) == str(before)
    (folder / "nested/weights.bin").write_bytes(b"second")

    after = Path(local_copy(folder.as_uri()))

    assert (before / "nested/weights.bin").read_bytes() == b"first"
    assert (after / "nested/weights.bin").read_bytes() == b"second"
    assert (after / "config.json").read_text() == "{}"
    assert (before.name, after.name) == ("model", "model")


def test_what_a_process_left_that_died_while_it_fetched_is_no_copy(folder):
    """It is removed, and all is fetched again."""
    copy = Path(local_copy(folder.as_uri()))
    half = copy.parent.with_suffix(".part")
    copy.parent.rename(half)
    (half / "model/config.json").unlink()
    (half / "model/other").touch()

    again = Path(local_copy(folder.as_uri()))

    assert again == copy
    assert sorted(p.name for p in again.rglob("*")) == ["config.json", "nested", "weights.bin"]
    assert not half.exists()


@pytest.mark.parametrize("name", ["org/model", "models/m.onnx", "/models/m.onnx"])
def test_what_is_no_uri_is_left_to_the_library(name):
    """A path, or a name in a hub, which has a cache and locks of its own."""
    assert local_copy(name) == name


def test_nothing_there_is_said_so(folder):
    """The path is in the message."""
    with pytest.raises(FileNotFoundError, match="none"):
        local_copy((folder / "none").as_uri())


def test_a_model_in_a_bucket_is_fetched_by_its_tags(tmp_path, monkeypatch, seaweedfs, prefix):
    """With the credentials of the environment; an object of the same size is another one."""
    bucket = Bucket(seaweedfs, prefix)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket.put("model/config.json", b"{}")
    bucket.put("model/weights.bin", b"first")
    before = Path(local_copy(f"{bucket.uri}/model"))
    bucket.put("model/weights.bin", b"other")

    after = Path(local_copy(f"{bucket.uri}/model"))
    one = Path(local_copy(f"{bucket.uri}/model/weights.bin"))
    bucket.close()

    assert [(p / "weights.bin").read_bytes() for p in (before, after)] == [b"first", b"other"]
    assert (after / "config.json").read_bytes() == b"{}"
    assert (one.name, one.read_bytes()) == ("weights.bin", b"other")
