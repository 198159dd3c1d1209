"""A stop: how the driver signals it to workers, and how much time each process has to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from batchrunner.errors import StorageError
from batchrunner.storage import Storage
from batchrunner.worker.steps import Step


@dataclass(frozen=True, slots=True)
class Grace:
    """Divides the time between a stop and the end of the process into deadlines.

    All deadlines count in seconds from the stop: if each counted from the one before, delays would
    add up.

    Attributes:
        seconds: When the process must have ended; a call that holds the interpreter is killed up to 4.5 s
            later. Kubernetes kills the process 30 s after SIGTERM.
    """

    seconds: float = 25.0

    @property
    def drain(self) -> float:
        """The deadline of workers for their shards in flight."""
        return self.leave - min(0.1 * self.seconds, 2.5)  # a worker may see the stop so much later

    @property
    def leave(self) -> float:
        """The deadline of the driver for its workers; then it releases the lease and reports."""
        return self.seconds - min(0.24 * self.seconds, 6.0)  # Ray takes 2 to 4 s to end

    @property
    def hooks(self) -> float:
        """The deadline of the driver for its hooks; then it leaves them behind, and its process ends."""
        return self.seconds - min(0.1 * self.seconds, 2.5)

    @property
    def force(self) -> float:
        """The deadline of the driver to release and report; then its process is ended by force."""
        return self.seconds - min(0.06 * self.seconds, 1.5)

    @property
    def poll(self) -> float:
        """Seconds between two checks of a worker for a stop."""
        return min(0.08 * self.seconds, 2.0)


class StopSignal(Protocol):
    """Reports whether, and since when, workers should stop."""

    def waited(self) -> float:
        """Return the seconds since the stop; 0.0 if there is none."""

    @property
    def ends_shards(self) -> bool:
        """Whether shards in flight end early: each call more costs."""


class StoredStop:
    """Detects the stop that the driver stores in the checkpoint for workers on any machine."""

    def __init__(self, storage: Storage, session: str, *, poll: float) -> None:
        """Check *storage* every *poll* seconds for the stop of *session*."""
        self._storage, self._key, self._poll = storage, stop_key(session), poll
        self._since: float | None = None
        self.ends_shards = False
        self._next_look = time.monotonic() + poll

    def waited(self) -> float:
        now = time.monotonic()
        if self._since is None and now >= self._next_look:
            self._next_look = now + self._poll
            with contextlib.suppress(StorageError):  # check again after the next interval
                entry = self._storage.head(self._key)
                self._since = now if entry else None
                self.ends_shards = entry is not None and entry.size > 0
        # Always above 0.0 after a stop, since 0.0 means no stop.
        return 0.0 if self._since is None else max(now - self._since, 1e-9)


def stop_key(session: str) -> str:
    """Return the key of the object whose presence stops the workers of *session*."""
    return f"sessions/{session}.stop"


ENDS_SHARDS = b"end shards early\n"
"""What is stored for workers whose shards are to end early; nothing for others."""


def until_stopped(steps: Iterator[Step], stop: StopSignal, *, drain: float) -> Iterator[Step]:
    """Yield *steps*; after a stop, only those of the shard in flight, for at most *drain* seconds."""
    current = -1  # no shard yet
    for step in steps:
        waited = stop.waited()
        if waited > drain:
            return
        if waited and step.portions[-1].shard.id != current:
            # Its first portion may be the end of the shard in flight.
            if (rest := step.of({current})).portions:
                yield rest
            return
        current = step.portions[-1].shard.id
        yield step
