"""Ray's token authentication works as Ray's own clients do it, and what is wrong is named."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import ray_doors
from command import ENVIRONMENT, a_spec_file, batchrunner
from job_processes import a_head, free_ports
from patience import PATIENCE

pytestmark = pytest.mark.ray

TOKEN, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def home():
    """A home whose token file is the cluster's; short, since Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="home") as name:
        (Path(name) / ".ray").mkdir()
        (Path(name) / ".ray/auth_token").write_text(TOKEN)
        yield name


@pytest.fixture(scope="module")
def guarded(home):
    """The addresses of a cluster that asks for a token, for drivers and for `ray://`."""
    port, client_port = free_ports(2)
    with a_head(port, client_port, HOME=home, RAY_TMPDIR=home, RAY_AUTH_MODE="token"):
        yield f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"


@pytest.fixture(scope="module")
def unguarded(local_ray):
    """The address of a cluster that asks for none."""
    return local_ray.get_runtime_context().gcs_address


def clients(home, *steps, **environment):
    """Take the steps, one after the other, in one process whose home is *home*."""
    inherited = {k: v for k, v in ENVIRONMENT.items() if k not in ray_doors.AUTHENTICATION}
    done = subprocess.run(
        [sys.executable, ray_doors.__file__],
        env={**inherited, "HOME": str(home), **environment},
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_token_is_used_where_the_cluster_asks_for_one_and_nowhere_else(home, guarded, unguarded):
    """A driver that sends a token to a cluster without loses its actors: both are joined, by turns."""
    direct, client = guarded
    steps = [(direct, {}), (unguarded, {}), (client, {}), (direct, {"RAY_AUTH_MODE": "token"})]

    joined, _ = clients(home, *steps)

    assert [end["said"] for end in joined] == [3, 3, 3, 3]
    assert all(end["kept"] for end in joined)


def test_a_client_that_is_not_let_in_hears_why_and_what_to_do_in_seconds(
    tmp_path, home, guarded, unguarded
):
    """A mere "Failed to connect", after 20 or 30 s, sends people to look at the network."""
    direct, client = guarded
    (let_in,), _ = clients(home, (direct, {}))
    soon = max(15, 5 * let_in["seconds"])  # the refusal may be as slow as the machine, not slower
    wrong = {"RAY_AUTH_TOKEN": OTHER}
    cases = [
        ((direct, {}), "requires a token: this machine has none. Put the cluster's"),
        ((client, {}), "requires a token: this machine has none. Put the cluster's"),
        ((direct, {"RAY_AUTH_TOKEN_PATH": "/nowhere"}), "cannot be opened or is empty: /nowhere"),
        ((direct, wrong), "refuses the token in RAY_AUTH_TOKEN: the cluster has another one"),
        ((client, wrong), "refuses the token in RAY_AUTH_TOKEN: the cluster has another one"),
        ((direct, {"RAY_AUTH_MODE": "disabled"}), "Unset it, or set RAY_AUTH_MODE=token"),
        ((unguarded, {"RAY_AUTH_MODE": "token"}), "runs without token authentication"),
        ((client.removeprefix("ray://"), {}), "does not answer as a Ray cluster"),
        ((f"ray://{direct}", {}), "does not answer as a Ray cluster"),
    ]

    refused, stderr = clients(tmp_path, *(step for step, _ in cases))

    for ended, (step, words) in zip(refused, cases, strict=True):
        assert words in ended["said"], (step, ended)
        assert ended["seconds"] < soon, (step, ended)
        assert OTHER not in ended["said"] + stderr


def test_the_command_ends_with_3_and_does_not_print_the_token(tmp_path, guarded):
    """The environment is to be mended, and then the same line again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jsonl").write_text('{"id": 1}\n')
    a_spec_file(tmp_path, ray={"address": guarded[0]}, execution={"engine": "ray"})

    done = batchrunner(
        "run", "spec.yaml", cwd=tmp_path, RAY_AUTH_TOKEN=OTHER, RAY_AUTH_MODE="token"
    )

    assert done.returncode == 3, done.stderr
    assert "refuses the token in RAY_AUTH_TOKEN" in done.stderr
    assert OTHER not in done.stdout + done.stderr


def test_a_local_ray_that_is_too_slow_gets_a_second_try(tmp_path):
    """A busy machine is no reason to end; and a local start has no address to be checked."""
    late = {"RAY_RUNTIME_ENV_HOOK": "ray_doors.fails_once", "RAY_AUTH_MODE": "disabled"}

    (started,), stderr = clients(tmp_path, ("local", {"RAY_AUTH_MODE": "disabled"}), **late)

    assert started["said"] == 3
    assert "gets a second try: TimeoutError: too slow" in stderr


def test_a_local_ray_that_cannot_start_is_told_as_such(tmp_path):
    """With the reason that lies below what Ray says."""
    (ended,), _ = clients(tmp_path, ("local", {}), RAY_TMPDIR="/dev/null")

    assert ended["said"].startswith("a local Ray did not start, twice: NotADirectoryError")
    assert "address" not in ended["said"].partition("or set")[0]
    assert ended["kept"]
