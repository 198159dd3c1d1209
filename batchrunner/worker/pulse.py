"""The pulse of a worker: what it is at, how long that has taken, and the heartbeats that say so."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from batchrunner.worker.heartbeat import Heartbeat, WorkerClocks, WorkerPhase
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.stage_clock import Doing, StageClock, StageKind, StageMeter
from batchrunner.worker.usage import NO_USAGE

_LONGEST_HOST = 64


@dataclass(slots=True)
class Attempt:
    """One attempt at one shard, while it lasts. Each field is changed by one thread only.

    Attributes:
        began: When it began, in seconds since 1970 UTC.
        since: The same by the monotonic clock.
        rows: Rows that have gone through the capability.
        bytes: Bytes of the source that these rows take.
        reading: Seconds in which the source was read.
        calling: Seconds in which it waited for the capability.
        writing: Seconds in which the part was written.
    """

    began: float = field(default_factory=time.time)
    since: float = field(default_factory=time.monotonic)
    rows: int = 0
    bytes: int = 0
    reading: float = 0.0
    calling: float = 0.0
    writing: float = 0.0


class Pulse:
    """What one worker is at. Safe in several threads.

    Attributes:
        worker: Names the worker, `<host>-<pid>`.
        phase: What it does.
        commit_share: Seconds that its last commit took, for each of the parts committed together.
        reads, calls, writes: Measure the thread that reads, the one that calls the capability, and the
            one that writes. The calls have a name once the capability is known.
        stages: Returns the clocks of the capability's stages, which then stand in for that of the
            calls; None if it has no stages.
        meter: Counts what its calls use; None before it knows its capability.
    """

    def __init__(self) -> None:
        self.commit_share = 0.0
        self.worker = worker_name()
        self.phase = WorkerPhase.LOADING
        self.reads = StageMeter("read", kind=StageKind.READ)
        self.calls = StageMeter("", doing=Doing.LOADING)
        self.writes = StageMeter("write", kind=StageKind.WRITE)
        self.stages: Callable[[], tuple[StageClock, ...]] | None = None
        self.meter: MeteredGate | None = None
        self._began = time.time()
        self._attempts: dict[int, Attempt] = {}

    def begin(self, shard: int) -> None:
        """Begin an attempt at *shard*."""
        self._attempts[shard] = Attempt()

    def attempt(self, shard: int) -> Attempt:
        """Return the attempt at *shard*; a new one that is not kept if none is going on."""
        return self._attempts.get(shard) or Attempt()

    def end(self, shard: int) -> None:
        """End the attempt at *shard*. Idempotent."""
        self._attempts.pop(shard, None)

    def end_all(self) -> None:
        """End all attempts."""
        self._attempts.clear()

    def heartbeat(self) -> Heartbeat:
        """Return what the worker is doing right now."""
        attempts = self._attempts.copy()  # at once, while other threads begin and end some
        return Heartbeat(
            self.worker,
            self.phase,
            rows={shard: attempt.rows for shard, attempt in attempts.items()},
            bytes={shard: attempt.bytes for shard, attempt in attempts.items()},
            clocks=self.clocks(),
        )

    def clocks(self) -> WorkerClocks | None:
        """Return what the worker has spent its time on; None before it knows its capability."""
        if not self.calls.name:
            return None
        limited = self.meter.limited if self.meter else 0.0
        stages = self.stages() if self.stages else (replace(self.calls.clock(), limited=limited),)
        return WorkerClocks(
            self.worker,
            self._began,
            (self.reads.clock(), *stages, self.writes.clock()),
            self.meter.used if self.meter else NO_USAGE,
        )


def worker_name() -> str:
    """Return the name of this process as a worker: ASCII, since it travels as metadata on S3."""
    host = socket.gethostname().encode("ascii", "replace").decode()
    return f"{host[:_LONGEST_HOST]}-{os.getpid()}"


@contextmanager
def beating(pulse: Pulse, send: Callable[[Heartbeat], None], *, seconds: float) -> Iterator[None]:
    """Send a heartbeat of *pulse* every so many *seconds* inside the block, and one after it.

    It is sent by a thread of its own, so that it goes on during a call that takes long or hangs.
    What *send* raises is ignored.
    """
    done = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(Exception):  # nothing but the display depends on it
                send(pulse.heartbeat())
            if done.wait(seconds):
                return

    thread = threading.Thread(target=beat, daemon=True, name="heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(seconds)
        with contextlib.suppress(Exception):
            send(pulse.heartbeat())
