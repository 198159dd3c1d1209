"""The run of format version 1 in `tests/data/v1`: `python tests/golden.py` made it, once and for all.

It lives in an in-memory storage, so that no path of any machine is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import lease
from batchrunner.storage import open_storage
from batchrunner.testing import memory  # noqa: F401 - makes memory:// known
from builders import rows

DATA = Path(__file__).parent / "data" / "v1"


def a_spec(store: str) -> BatchSpec:
    return BatchSpec(
        name="golden",
        capability={"target": "capabilities:double", "version": "1"},
        source=f"memory://{store}/in",
        sink={"uri": f"memory://{store}/out", "format": "jsonl"},
        execution={"engine": "local"},
    )


def write() -> None:
    """Run three shards, then one more file."""
    source = open_storage("memory://golden")
    for number in range(3):
        source.put(f"in/{number}.jsonl", lines(rows(number * 4, 4)))
    BatchRunner(a_spec("golden")).run()
    source.put("in/later.jsonl", lines(rows(20, 2)))
    BatchRunner(a_spec("golden")).run()
    for entry in source.list(recursive=True):
        path = DATA / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.get(entry.key))


def load(store: str) -> None:
    """Put the run into the in-memory storage *store*."""
    target = open_storage(f"memory://{store}")
    for path in sorted(DATA.rglob("*")):
        if path.is_file():
            target.put(path.relative_to(DATA).as_posix(), path.read_bytes())


def lines(content: list[dict]) -> bytes:
    import orjson

    return b"".join(orjson.dumps(row) + b"\n" for row in content)


if __name__ == "__main__":
    # No real machine and no real name.
    from batchrunner.driver import opening

    opening._user = lambda: "somebody"
    opening.platform.node = lambda: "somewhere"
    lease._boot = lambda: ""
    write()
    sys.stdout.write(f"written to {DATA}\n")
