"""Dies at every request that changes a bucket, before it is sent or after it is answered; goes on.

A program of its own, for it forks: `python s3_sweep.py ENDPOINT BUCKET PREFIX before|after [files]`. With
`files`, rows name files, with other bytes in each attempt.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys

import aiobotocore.session  # noqa: F401 - before the forks, each of which would import it
import pandas as pd  # noqa: F401 - likewise, for pyarrow
import pyarrow.parquet  # noqa: F401 - likewise
import s3fs  # noqa: F401 - likewise

import file_sinks
from batchrunner import BatchRunner, BatchSpec
from batchrunner.storage.s3 import calls as s3_calls
from batchrunner.testing.s3_servers import S3Server
from buckets import Bucket
from builders import rows
from forks import ChildFailed, in_child

CHANGES = ("put_object", "delete_objects", "copy_object", "complete_multipart_upload")
SHARDS, ROWS = 2, 3
EXPECTED = rows(0, SHARDS * ROWS)
FILES = sys.argv[5:] == ["files"]


def main(server: S3Server, prefix: str, moment: str) -> None:
    deaths, findings = 0, []
    while True:
        die_at = deaths + 1
        job = f"{prefix}/{die_at}"
        bucket = Bucket(server, job)
        for shard in range(SHARDS):
            bucket.put_rows(f"in/{shard}.jsonl", rows(shard * ROWS, ROWS))
        if not in_child(lambda: run(server, job, die_at=die_at, moment=moment)):  # noqa: B023 - called at once
            break
        deaths += 1
        findings += [f"change {die_at}: {fault}" for fault in faults(server, job)]
        bucket.close()
    sys.stdout.write("\n".join([str(deaths), *findings]))


def run(server: S3Server, job: str, *, die_at: int = 0, moment: str = "") -> None:
    dying(die_at, moment)
    uri = f"s3://{server.bucket}/{job}"
    options = server.storage_options
    target, made = ("file_sinks:draws", "files") if FILES else ("capabilities:echo", None)
    spec = BatchSpec(
        capability=target,
        source={"uri": f"{uri}/in", "shard": {"files": 1}, "storage_options": options},
        sink={"uri": f"{uri}/out", "format": made, "storage_options": options},
        execution={"engine": "local"},
    )
    assert BatchRunner(spec).run().ok


def dying(die_at: int, moment: str) -> None:
    """Make this process die at the change number *die_at*."""
    real, changes = s3_calls._call, 0

    async def call(fs, method, **parameters):
        nonlocal changes
        changes += method in CHANGES
        fatal = method in CHANGES and changes == die_at
        if fatal and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await real(fs, method, **parameters)
        finally:  # a refusal is an answer too
            if fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    s3_calls._call = call


def faults(server: S3Server, job: str) -> list[str]:
    bucket = Bucket(server, job)
    found = contradictions(bucket)
    before = {
        key: which for key, which in bucket.listed("out/part-").items() if key in bucket.sentinels()
    }
    try:
        in_child(lambda: run(server, job))
    except ChildFailed:
        return [*found, "the next run fails"]
    found += contradictions(bucket)
    after = bucket.listed("out/")
    if differs(bucket):
        found.append("the output differs")
    if any(after[key] != which for key, which in before.items()):
        found.append("a committed part was touched")
    if "out/_SUCCESS" not in after:
        found.append("no _SUCCESS")
    bucket.close()
    return found


def contradictions(bucket: Bucket) -> list[str]:
    parts = bucket.listed("out/part-")
    found = []
    for part, sentinel in bucket.sentinels().items():
        if part not in parts:
            found.append(f"the sentinel of {part} stands without it")
        elif hashlib.sha256(bucket.get(part)).hexdigest() != sentinel["sha256"]:
            found.append(f"the sentinel of {part} lies")
        elif FILES and (why := file_sinks.misfits_in(bucket, parts=[part])):
            found.append(f"the sentinel of {part} stands without {why}")
    return found


def differs(bucket: Bucket) -> bool:
    if not FILES:
        return bucket.rows_out() != EXPECTED
    ids = [row["id"] for row in bucket.rows_out()]
    left = bucket.listed("out/_checkpoint/files/")
    parts = bucket.listed("out/part-")
    return bool(
        file_sinks.misfits_in(bucket, parts=parts) or left or ids != list(range(len(EXPECTED)))
    )


if __name__ == "__main__":
    endpoint, name, where, when = sys.argv[1:5]
    main(S3Server(endpoint, name), where, when)
