"""Clients of jobs in processes of their own, as notebooks and services are."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from command import ENVIRONMENT
from patience import PATIENCE

_PRELUDE = """
import json, os, sys, threading, time, warnings
warnings.simplefilter("ignore", FutureWarning)
from batchrunner.jobs import *
from batchrunner.jobs.registry import Registry
from job_capabilities import *
from job_processes import wait_for

def configure(**more):
    options = {**json.loads(sys.argv[1]), **more}
    configure_job_backend(options.pop("kind", "ray"), **options)

def say(*words):
    print(*words, flush=True)
"""

# Ray forks a server for each `ray://` client. With gRPC's handlers of forks some hung on a busy machine
# ("epoll_wait error: Bad file descriptor"); without them, none of 14 did.
_CLIENT_SERVER = {
    "GRPC_ENABLE_FORK_SUPPORT": "false",
    "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "100",
}


def a_client(
    code: str, options: dict[str, Any], *, cwd: Path, before: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """Start a process that runs *code*; `configure()` there has these *options*."""
    command = [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), json.dumps(options)]
    return subprocess.Popen(
        [*before, *command],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_by(process: subprocess.Popen[str], *, code: int = 0) -> list[str]:
    """Wait for its end and return the lines it said."""
    with process:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stdout + stderr
    return [line for line in stdout.splitlines() if "(raylet)" not in line]


def first_line_of(process: subprocess.Popen[str]) -> str:
    """Wait for the first thing it says; what Ray says in between does not count."""
    for line in process.stdout:
        if "(raylet)" not in line:
            return line.strip()
    raise AssertionError(process.stderr.read())


def end_registry(scope: str) -> None:
    """End the registry of a scope whose test is over: its process would stay for an hour."""
    import ray

    for actor in ray.util.list_named_actors(all_namespaces=True):
        if scope in actor["name"]:
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))


def registry_process(scope: str) -> tuple[Any, psutil.Process]:
    """The process of the registry actor of a scope, and the actor."""
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    name = next(actor["name"] for actor in named if scope in actor["name"])
    actor = ray.get_actor(name, namespace="batchrunner_jobs")
    return actor, psutil.Process(ray.get(actor.pid.remote(), timeout=PATIENCE))


def wait_for(condition: Any, *, seconds: float = PATIENCE, what: str = "") -> Any:
    """Wait until *condition* gives something true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or condition}"
        time.sleep(0.01)
    return value


def kill_with_all_below(process: subprocess.Popen[Any]) -> None:
    """End a process and what it started, a Ray for example, as a power cut does: all at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for end in (psutil.Process.suspend, psutil.Process.kill):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(member)


@contextmanager
def a_head(port: int, client_port: int, **environment: str) -> Iterator[None]:
    """Have a Ray head on loopback, with a port for `ray://`; nothing of it is left."""
    ray = Path(sys.executable).with_name("ray")
    command = [
        *(ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"),
        *(f"--port={port}", f"--ray-client-server-port={client_port}", "--disable-usage-stats"),
        *("--include-dashboard=false", "--object-store-memory=100000000"),
    ]
    with subprocess.Popen(
        list(map(str, command)),
        env={**ENVIRONMENT, **_CLIENT_SERVER, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as head:
        try:
            wait_for(lambda: _is_listening(client_port), what="Ray's client port")
            yield
        finally:
            kill_with_all_below(head)


def free_ports(number: int) -> list[int]:
    """Return ports that no process listens at, all different."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
