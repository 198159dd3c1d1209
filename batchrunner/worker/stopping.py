"""A stop: the signal from the driver to its workers, and the time that each of them has to obey it."""

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
    """Divides the time between a stop and the end of the process; all deadlines count from the stop.

    Deadlines that each count from the end of the one before would add up.

    Attributes:
        seconds: Until the process has ended. Kubernetes kills 30 s after SIGTERM.
    """

    seconds: float = 25.0

    @property
    def drain(self) -> float:
        """Until when a worker may go on with a shard in flight."""
        return self.leave - min(0.1 * self.seconds, 2.5)  # it may detect the stop so much later

    @property
    def leave(self) -> float:
        """Until when the driver waits for workers; then it releases the lease and reports."""
        return self.seconds - min(0.24 * self.seconds, 6.0)  # Ray takes 2 to 4 s to end

    @property
    def force(self) -> float:
        """Until when the driver may take for that; then the process is ended by force."""
        return self.seconds - min(0.06 * self.seconds, 1.5)

    @property
    def poll(self) -> float:
        """How often a worker checks for a stop."""
        return min(0.08 * self.seconds, 2.0)


class StopSignal(Protocol):
    """Whether, and since when, work is to stop."""

    def waited(self) -> float:
        """Return the seconds since the stop; 0.0 as long as there is none."""


class StoredStop:
    """A stop that the driver stores in the checkpoint, for workers on any machine."""

    def __init__(self, storage: Storage, session: str, *, poll: float) -> None:
        """Check *storage* every *poll* seconds for the stop of *session*."""
        self._storage, self._key, self._poll = storage, stop_key(session), poll
        self._since: float | None = None
        self._next_look = time.monotonic() + poll

    def waited(self) -> float:
        now = time.monotonic()
        if self._since is None and now >= self._next_look:
            self._next_look = now + self._poll
            with contextlib.suppress(StorageError):  # check again after the next interval
                self._since = now if self._storage.head(self._key) else None
        # Above 0.0 from the first moment: callers take 0.0 for no stop.
        return 0.0 if self._since is None else max(now - self._since, 1e-9)


def stop_key(session: str) -> str:
    """Return the key of the object that stops the workers of *session*."""
    return f"sessions/{session}.stop"


def until_stopped(steps: Iterator[Step], stop: StopSignal, *, drain: float) -> Iterator[Step]:
    """Yield *steps*; after a stop, only those of the shard in flight, for at most *drain* seconds."""
    current = None
    for step in steps:
        waited = stop.waited()
        if waited > drain or (waited and step.shard.id != current):
            return
        current = step.shard.id
        yield step
