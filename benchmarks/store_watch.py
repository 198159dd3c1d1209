"""What a contestant of W6 tells when it is done: its model's calls, and the object store's peak."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.three_stages import Calls

_PERIOD_SECONDS = 0.25


@contextmanager
def told_of_calls(out: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Have a path for the model's log, beside *out*, and facts that are there after the block."""
    log, facts = Path(f"{out}-calls") / "log", dict[str, float]()
    log.parent.mkdir()
    with _store_watched(facts):
        yield str(log), facts
    calls = Calls.of(log)
    facts["accelerator busy, %"] = 100 * calls.busy
    facts["full batches, %"] = 100 * calls.full
    facts["longest wait, s"] = calls.longest_wait
    facts["rows through the model"] = calls.rows


@contextmanager
def _store_watched(facts: dict[str, float]) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=_look_on, args=(done, facts), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _look_on(done: threading.Event, facts: dict[str, float]) -> None:
    """Keep the largest sum of bytes in the object stores of the nodes, as Ray's raylets say."""
    facts["object store's peak, MB"] = 0.0
    while not done.wait(_PERIOD_SECONDS):
        now = _store_bytes() / 2**20
        facts["object store's peak, MB"] = max(facts["object store's peak, MB"], now)


def _store_bytes() -> int:
    import ray
    from ray._private.internal_api import node_stats

    nodes = [node for node in ray.nodes() if node["Alive"]]
    stats = [
        node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False) for node in nodes
    ]
    return sum(each.store_stats.object_store_bytes_used for each in stats)
