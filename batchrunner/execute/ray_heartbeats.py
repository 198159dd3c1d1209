"""Heartbeats from Ray's processes to the driver, through the key-value store of the cluster.

Not between the receipts: a worker can yield only between two calls of the capability, each item
costs Ray Data 10 to 20 ms, and when Ray repeats a task that died it drops as many items as the
first try had yielded, receipts among them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import orjson

from batchrunner.worker.heartbeat import Heartbeat, WorkerClocks, WorkerPhase
from batchrunner.worker.stage_clock import StageClock

_NAMESPACE = b"batchrunner"
_WORKERS_A_SECOND = 100
_LEAVE_SECONDS = 1.0

Hear = Callable[[Heartbeat], None]


def beat_seconds(workers: int) -> float:
    """Return after how many seconds each of so many *workers* sends its next heartbeat."""
    return max(1.0, workers / _WORKERS_A_SECOND)


class Sender:
    """Sends the heartbeats of one worker of *session*: each replaces the one before."""

    def __init__(self, session: str) -> None:
        self._prefix, self._count = _prefix(session), 0

    def __call__(self, heartbeat: Heartbeat) -> None:
        """Send *heartbeat*. Raises what Ray raises."""
        self._count += 1  # so that each differs from the one before, as long as the worker is alive
        data = orjson.dumps([self._count, asdict(heartbeat)], option=orjson.OPT_NON_STR_KEYS)
        _Store().put(self._prefix + heartbeat.worker.encode(), data)


@contextmanager
def heard(session: str, hear: Hear, *, seconds: float) -> Iterator[None]:
    """Call *hear* with each new heartbeat of the workers of *session*, in a thread, inside the block.

    Looks for them every so many *seconds*, and removes them at the end. Never raises: nothing but
    the display depends on them.
    """
    done = threading.Event()

    def listen() -> None:
        latest: dict[bytes, bytes] = {}
        while not done.wait(seconds):
            with contextlib.suppress(Exception):
                _hear_new(session, latest, hear)
        with contextlib.suppress(Exception):
            _Store().remove(_prefix(session))

    thread = threading.Thread(target=listen, daemon=True, name="heartbeats")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_LEAVE_SECONDS)  # not longer: a cluster that is gone does not answer


def _hear_new(session: str, latest: dict[bytes, bytes], hear: Hear) -> None:
    found = _Store().items(_prefix(session))
    for key, data in found.items():
        if latest.get(key) != data:
            latest[key] = data
            hear(_from(data))


def _from(data: bytes) -> Heartbeat:
    _, fields = orjson.loads(data)
    return Heartbeat(
        fields["worker"],
        WorkerPhase(fields["phase"]),
        rows={int(shard): rows for shard, rows in fields["rows"].items()},
        bytes={int(shard): nbytes for shard, nbytes in fields["bytes"].items()},
        clocks=fields["clocks"] and _clocks(fields["clocks"]),
    )


def _clocks(fields: Mapping[str, Any]) -> WorkerClocks:
    stages = tuple(map(StageClock.from_dict, fields["stages"]))
    return WorkerClocks(fields["worker"], fields["since"], stages, fields["usage"])


def _prefix(session: str) -> bytes:
    return f"heartbeats/{session}/".encode()


class _Store:
    """The key-value store of the cluster that this process is connected to.

    Ray has no public interface for it. A release without these functions sends no heartbeats.
    """

    def __init__(self) -> None:
        import ray
        from ray.experimental import internal_kv

        if not ray.is_initialized():  # its functions would connect to whatever is there
            raise ConnectionError("this process is not connected to Ray")
        self._kv: Any = internal_kv

    def put(self, key: bytes, data: bytes) -> None:
        self._kv._internal_kv_put(key, data, overwrite=True, namespace=_NAMESPACE)  # noqa: SLF001 - it has no other name

    def items(self, prefix: bytes) -> Mapping[bytes, bytes]:
        keys = self._kv._internal_kv_list(prefix, namespace=_NAMESPACE)  # noqa: SLF001 - as above
        client = self._kv.internal_kv_get_gcs_client()
        found: Mapping[bytes, bytes] = client.internal_kv_multi_get(keys, _NAMESPACE)
        return found

    def remove(self, prefix: bytes) -> None:
        self._kv._internal_kv_del(prefix, del_by_prefix=True, namespace=_NAMESPACE)  # noqa: SLF001 - as above
