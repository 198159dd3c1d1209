"""Runs a spec in a process of its own and prints what that asked of a disk and of a bucket, as JSON.

Nothing happens by the clock: the lease is not renewed, and the worker's log is kept at its end.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import Counter
from typing import Any

from batchrunner import BatchRunner, BatchSpec
from batchrunner.driver import session
from batchrunner.storage import opening
from batchrunner.storage.s3 import calls as s3_calls
from batchrunner.worker import worker_log

NEVER = 1e6


def main(spec: dict[str, Any]) -> None:
    session.RENEW_SECONDS = worker_log._EVERY_SECONDS = NEVER
    counts: Counter[str] = Counter()
    _count_syncs(counts)
    _count_requests(counts)
    assert BatchRunner(BatchSpec(**spec)).run().ok
    sys.stdout.write(json.dumps({"storages": len(opening._opened), **counts}))


def _count_syncs(counts: Counter[str]) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        counts["folders" if stat.S_ISDIR(os.fstat(fd).st_mode) else "files"] += 1
        real(fd)

    os.fsync = fsync


def _count_requests(counts: Counter[str]) -> None:
    real = s3_calls._call

    async def call(fs: Any, method: str, **parameters: Any) -> Any:
        counts["".join(map(str.title, method.split("_")))] += 1
        return await real(fs, method, **parameters)

    s3_calls._call = call


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
