"""How a worker learns that it is to stop: at a shard's end, and when that takes too long, at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from batchrunner.errors import StorageError
from batchrunner.storage import Storage
from batchrunner.worker.reading import Step

DRAIN_SECONDS = 20.0
"""How long a shard in flight may go on after a stop. Clusters kill 25 to 30 s after SIGTERM."""

_POLL_SECONDS = 2.0


class Stop(Protocol):
    """A wish to stop."""

    def waited(self) -> float:
        """Return for how many seconds the wish has been there; 0.0 as long as it is not."""


class StoredStop:
    """A wish to stop that a driver left in the checkpoint for workers on any machine."""

    def __init__(self, storage: Storage, session: str) -> None:
        self._storage, self._key = storage, stop_key(session)
        self._seen: float | None = None
        self._next_look = time.monotonic() + _POLL_SECONDS

    def waited(self) -> float:
        now = time.monotonic()
        if self._seen is None and now >= self._next_look:
            self._next_look = now + _POLL_SECONDS
            with contextlib.suppress(StorageError):  # ask again in a while
                self._seen = now if self._storage.head(self._key) else None
        return 0.0 if self._seen is None else max(now - self._seen, 1e-9)


def stop_key(session: str) -> str:
    """Return the key of the object that tells the workers of *session* to stop."""
    return f"sessions/{session}.stop"


def until_stopped(steps: Iterator[Step], stop: Stop) -> Iterator[Step]:
    """Yield *steps* up to the end of a shard once there is a wish to stop, or for a while longer."""
    current = None
    for step in steps:
        waited = stop.waited()
        if waited > DRAIN_SECONDS or (waited and step.shard.id != current):
            return
        current = step.shard.id
        yield step
