"""How a worker learns that it is to stop: at a shard's end, and when that takes too long, at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from batchrunner.errors import StorageError
from batchrunner.storage import Storage
from batchrunner.worker.reading import Step


@dataclass(frozen=True, slots=True)
class Grace:
    """How the time between a stop and the end of the process is shared out.

    One clock for all: deadlines that each part counts from when the one before it gave up add up.

    Attributes:
        seconds: Until the process is gone. Kubernetes kills 30 s after SIGTERM.
    """

    seconds: float = 25.0

    @property
    def drain(self) -> float:
        """Until when a worker may go on with a shard in flight."""
        return self.leave - min(0.1 * self.seconds, 2.5)  # it may hear of the stop so much later

    @property
    def leave(self) -> float:
        """Until when the driver waits for workers; then it gives the lease back and reports."""
        return self.seconds - min(0.24 * self.seconds, 6.0)  # Ray takes 2 to 4 s to end

    @property
    def force(self) -> float:
        """Until when all that may take; then the process is ended without asking."""
        return self.seconds - min(0.06 * self.seconds, 1.5)

    @property
    def poll(self) -> float:
        """How often a worker looks whether there is a stop."""
        return min(0.08 * self.seconds, 2.0)


class Stop(Protocol):
    """A wish to stop."""

    def waited(self) -> float:
        """Return for how many seconds the wish has been there; 0.0 as long as it is not."""


class StoredStop:
    """A wish to stop that a driver left in the checkpoint for workers on any machine."""

    def __init__(self, storage: Storage, session: str, *, poll: float) -> None:
        """Look every *poll* seconds for the wish that the driver of *session* leaves in *storage*."""
        self._storage, self._key, self._poll = storage, stop_key(session), poll
        self._seen: float | None = None
        self._next_look = time.monotonic() + poll

    def waited(self) -> float:
        now = time.monotonic()
        if self._seen is None and now >= self._next_look:
            self._next_look = now + self._poll
            with contextlib.suppress(StorageError):  # ask again in a while
                self._seen = now if self._storage.head(self._key) else None
        return 0.0 if self._seen is None else max(now - self._seen, 1e-9)


def stop_key(session: str) -> str:
    """Return the key of the object that tells the workers of *session* to stop."""
    return f"sessions/{session}.stop"


def until_stopped(steps: Iterator[Step], stop: Stop, *, drain: float) -> Iterator[Step]:
    """Yield *steps* up to a shard's end once there is a wish to stop, or for *drain* seconds more."""
    current = None
    for step in steps:
        waited = stop.waited()
        if waited > drain or (waited and step.shard.id != current):
            return
        current = step.shard.id
        yield step
