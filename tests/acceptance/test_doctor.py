"""`batchrunner doctor`: what it finds is so, costs its own line only, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from buckets import Bucket
from command import a_spec_file, batchrunner
from job_processes import a_head, free_ports
from patience import PATIENCE

pytestmark = pytest.mark.long

TOKEN = "a" * 64
SECRETS = {"key": "AKIASECRETONE", "secret": "wJalrSECRETTWO"}
GUARDED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": ""}


@pytest.fixture
def folder(tmp_path):
    """A folder with rows, and a capability that leaves no bytecode of its own to be found."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/rows.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "caps.py").write_text("def same(rows):\n    return rows\n")
    a_spec_file(tmp_path, capability="caps:same")
    return tmp_path


@pytest.fixture
def short():
    """A folder for temporary files and a home, with a short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="dr", dir="/tmp") as name:
        (Path(name) / "home").mkdir()
        (Path(name) / "tmp").mkdir()
        yield Path(name)


def diagnosed(*arguments, cwd, timeout=PATIENCE, **environment):
    """Code of the command, and its findings by name of the check."""
    done = batchrunner(
        "doctor", *arguments, "-o", "json", "--timeout", timeout, cwd=cwd, **environment
    )
    assert "Traceback" not in done.stderr
    findings = json.loads(done.stdout)["checks"]
    return done.returncode, {one["check"]: one for one in findings}


def everything(folder):
    return sorted(folder.rglob("*"))


def failed(found):
    return {name for name, one in found.items() if one["status"] == "fail"}


def test_a_spec_that_can_run_is_found_fit_and_nothing_is_left_behind(folder):
    """A check that makes the sink, or a file in it, would be a first half of a run."""
    before = everything(folder)

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (0, set()), found
    assert {"python", "packages", "memory", "open files", "gpu"} <= found.keys()
    assert "1 file," in found["source"]["fact"]
    assert "refuses a second writer" in found["sink"]["fact"]
    assert found["ray"]["fact"] == "not used: execution.engine is local"
    assert everything(folder) == before


def test_the_table_ends_with_the_line_to_paste(folder):
    """A tired user reads the last line first."""
    line = ["doctor", "spec.yaml", "--set", "tags.why=x y", "--timeout", PATIENCE]

    done = batchrunner(*line, cwd=folder)

    assert done.returncode == 0, done.stdout
    assert done.stderr.endswith("next: batchrunner run spec.yaml --set 'tags.why=x y'\n")
    assert all(line.startswith(("ok  ", "warn", "  ")) for line in done.stdout.splitlines())


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept():
            while True:
                try:
                    kept.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection, _ in kept:
            connection.close()


def test_an_endpoint_that_hangs_costs_its_line_and_no_secret_is_printed(folder, silent):
    """All else is found at the same time; and what is printed is pasted into tickets."""
    sink = {"uri": "s3://b/out", "storage_options": {**SECRETS, "endpoint_url": silent}}
    a_spec_file(folder, capability="caps:sane", sink=sink)

    line = ["doctor", "spec.yaml", "--timeout", 20]
    done = batchrunner(*line, cwd=folder, AWS_SECRET_ACCESS_KEY="SECRETTHREE")

    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "fail  sink              no answer within 20 s" in said
    assert "fail  capability        capability 'caps:sane': caps has no 'sane'" in said
    assert "did you mean same?" in said
    assert "ok    source" in said
    assert "ok    ray" in said
    assert "RAY_AUTH_MODE is disabled" in said
    assert "AWS_SECRET_ACCESS_KEY" in said
    assert not any(secret in said for secret in (*SECRETS.values(), "SECRETTHREE"))


def test_a_spec_that_cannot_be_read_leaves_the_machine_to_look_at(folder):
    """Its own line says what is wrong, and code 3 that a run would stop."""
    (folder / "spec.yaml").write_text("sink: ${NO_SUCH_VARIABLE}\n")

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (3, {"spec"})
    assert "\n" in found["spec"]["fact"]
    assert "NO_SUCH_VARIABLE" in found["spec"]["fact"]
    assert found["python"]["status"] == "ok"


def test_a_sink_that_cannot_be_made_and_a_source_without_files_are_found(folder):
    """Before the cluster is paid for."""
    (folder / "file").write_text("")
    a_spec_file(folder, capability="caps:same", source="nothing/*.jsonl", sink="file/out")

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (3, {"source", "sink"}), found


@pytest.fixture
def bucket(seaweedfs, prefix):
    opened = Bucket(seaweedfs, prefix)
    yield opened
    opened.close()


def test_a_bucket_is_proven_and_left_as_it_was(folder, bucket):
    """List, write, refuse a second writer, delete; and the clock of the server."""
    sink = {"uri": f"{bucket.uri}/out", "storage_options": bucket.storage_options}
    a_spec_file(folder, capability="caps:same", sink=sink, analytics_store=sink)

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (0, set()), found
    assert "refuses a second writer" in found["analytics store"]["fact"]
    assert found["clock of sink"]["fact"].endswith("agree")
    assert (bucket.listed(), bucket.uploads()) == ({}, 0)


def test_a_bucket_without_conditional_writes_is_found(folder, rclone, prefix):
    """A second driver would replace what is published."""
    sink = {"uri": f"s3://{rclone.bucket}/{prefix}", "storage_options": rclone.storage_options}
    a_spec_file(folder, capability="caps:same", sink=sink)

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (3, {"sink"})
    assert "ignores If-None-Match" in found["sink"]["fact"]


@pytest.mark.ray
def test_a_local_ray_starts_and_leaves_neither_logs_nor_a_token(folder, short):
    """Ray makes a token and a folder of logs when it starts: of a check, both would be litter."""
    code, found = diagnosed(
        cwd=folder, HOME=str(short / "home"), TMPDIR=str(short / "tmp"), **GUARDED
    )

    assert (code, failed(found)) == (0, set()), found
    assert found["ray"]["fact"].startswith("a local Ray started")
    assert "1 of 1 nodes have what is here" in found["workers"]["fact"]
    assert everything(short) == [short / "home", short / "tmp"]


@pytest.mark.ray
def test_a_cluster_is_looked_at_with_its_token_and_its_workers(folder, short):
    """Which token is used, by the name of its place; a worker imports the capability."""
    home, port, client_port = short / "home", *free_ports(2)
    a_spec_file(folder, capability="caps:same", execution={}, ray={"address": f"127.0.0.1:{port}"})
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(TOKEN)
    with a_head(port, client_port, HOME=str(home), RAY_TMPDIR=str(short), RAY_AUTH_MODE="token"):
        with_token = diagnosed("spec.yaml", cwd=folder, HOME=str(home), **GUARDED)
        without = diagnosed("spec.yaml", cwd=folder, HOME=str(short / "tmp"), **GUARDED)

    code, found = with_token
    assert (code, failed(found)) == (0, set()), found
    assert "with the token in ~/.ray/auth_token" in found["ray"]["fact"]
    assert TOKEN not in json.dumps(found)
    assert (without[0], failed(without[1])) == (3, {"ray"})
    assert "requires a token" in without[1]["ray"]["fact"]
    assert os.listdir(short / "tmp") == []


def test_an_endpoint_that_refuses_is_named_at_once(folder):
    """S3's client tries again for minutes; "no answer" would send the reader after a slow network."""
    (port,) = free_ports(1)
    sink = {"uri": "s3://b/out", "storage_options": {"endpoint_url": f"http://127.0.0.1:{port}"}}
    a_spec_file(folder, capability="caps:same", sink=sink)

    code, found = diagnosed("spec.yaml", cwd=folder)

    assert (code, failed(found)) == (3, {"sink"})
    assert found["sink"]["fact"] == f"127.0.0.1:{port} refuses connections"


def test_a_capability_that_forks_as_it_is_imported_is_found_fit(folder):
    """Its child may hold the streams open for as long as it likes: the import itself has ended."""
    (folder / "caps.py").write_text(
        "import os, time\n"
        "if not os.fork():\n"
        "    time.sleep(15)\n"
        "    os._exit(0)\n"
        "def same(rows):\n"
        "    return rows\n"
    )

    code, found = diagnosed("spec.yaml", cwd=folder, timeout=12)

    assert found["capability"]["status"] == "ok", found
    assert code == 0
