"""The shards in flight: what the workers are at, as their heartbeats say. Only the display reads it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase

SILENT_SECONDS = 10.0
"""A worker of which nothing was heard for so long, or for five of its pauses, is not counted: it has
died, or a call holds its interpreter."""
_PAUSES = 5
_SHOWN_SHARDS = 5


@dataclass(slots=True)
class _Worker:
    heartbeat: Heartbeat
    at: float
    pause: float = 0.0

    def is_silent(self, now: float) -> bool:
        return now - self.at > max(SILENT_SECONDS, _PAUSES * self.pause)


@dataclass(slots=True)
class _Begun:
    """A shard that a worker has begun; not `listed` once the worker has ended it."""

    worker: str
    since: float
    rows: int = 0
    bytes: int = 0
    listed: bool = True


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that died.

    Attributes:
        worker: Its name, or its process id alone if nothing was heard of it.
        shards: Ids of the shards that it had begun and not ended, as far as is known.
    """

    worker: str
    shards: tuple[int, ...] = ()

    def __str__(self) -> str:
        shards = ", ".join(f"{shard:,}" for shard in self.shards[:_SHOWN_SHARDS])
        more = f" and {len(self.shards) - _SHOWN_SHARDS:,} more" * (
            len(self.shards) > _SHOWN_SHARDS
        )
        had = f" while it had shard{'s' * (len(self.shards) > 1)} {shards}{more}" if shards else ""
        return f"a worker died{had} (process {self.worker}); its shards are tried one by one"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the workers are at.

    Attributes:
        workers: Number of workers heard of lately.
        busy: Number of those that have shards.
        rows: By id of each shard in flight, the rows that have gone through the capability.
        bytes: The same in bytes of the source.
        slowest: Id and seconds so far of the shard that has been in flight longest. It may be at a
            worker that is silent: a call that hangs can silence it.
    """

    workers: int = 0
    busy: int = 0
    rows: Mapping[int, int] = field(default_factory=dict)
    bytes: Mapping[int, int] = field(default_factory=dict)
    slowest: tuple[int, float] | None = None


class InFlight:
    """Collects the heartbeats of all workers, of which any may be lost, late or doubled.

    Safe in several threads.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._workers: dict[str, _Worker] = {}
        self._begun: dict[int, _Begun] = {}
        self._ended: set[int] = set()
        self._deaths: list[Death] = []

    def hear(self, heartbeat: Heartbeat) -> None:
        """Take the latest *heartbeat* of a worker."""
        now, name = self._clock(), heartbeat.worker
        with self._lock:
            before = self._workers.get(name)
            for shard in before.heartbeat.rows.keys() - heartbeat.rows.keys() if before else ():
                if (begun := self._begun.get(shard)) and begun.worker == name:
                    begun.listed = False
            for shard in heartbeat.rows.keys() - self._ended:
                self._note(shard, heartbeat, now)
            self._workers[name] = _Worker(heartbeat, now, now - before.at if before else 0.0)

    def bury(self, process: str) -> None:
        """Take that the worker with the id *process* died: it has no shard any more."""
        with self._lock:
            name = next((one for one in self._workers if one.endswith(f"-{process}")), process)
            self._workers.pop(name, None)
            had = [i for i, one in self._begun.items() if one.worker == name and one.listed]
            for shard in had:
                self._begun.pop(shard)
            self._deaths.append(Death(name, tuple(sorted(had))))

    def deaths(self) -> list[Death]:
        """Return the workers that died since the last call."""
        with self._lock:
            deaths, self._deaths = self._deaths, []
            return deaths

    def _note(self, shard: int, heartbeat: Heartbeat, now: float) -> None:
        begun = self._begun.get(shard)
        if begun is None or (begun.worker != heartbeat.worker and not self._is_held(begun, now)):
            begun = self._begun[shard] = _Begun(heartbeat.worker, now)
        if begun.worker == heartbeat.worker:
            begun.rows, begun.bytes = heartbeat.rows[shard], heartbeat.bytes.get(shard, 0)
            begun.listed = True

    def _is_held(self, begun: _Begun, now: float) -> bool:
        """Return whether the worker that has begun a shard still has it, as far as is known."""
        return begun.listed and not self._workers[begun.worker].is_silent(now)

    def end(self, shard: int) -> None:
        """Drop *shard*, which is committed or failed: a heartbeat that is late does not revive it."""
        with self._lock:
            self._ended.add(shard)
            self._begun.pop(shard, None)

    def begin_again(self, shards: Iterable[int]) -> None:
        """Prepare for another attempt at those *shards* that had ended."""
        with self._lock:
            self._ended.difference_update(shards)

    def seen(self) -> Seen:
        """Return what the workers are at now."""
        now = self._clock()
        with self._lock:
            heard = {n: w.heartbeat for n, w in self._workers.items() if not w.is_silent(now)}
            begun = [(i, one) for i, one in self._begun.items() if one.worker in heard]
            listed = ((one.since, i) for i, one in self._begun.items() if one.listed)
            since, slowest = min(listed, default=(0.0, None))
            return Seen(
                workers=len(heard),
                busy=sum(beat.phase is WorkerPhase.RUNNING for beat in heard.values()),
                rows={i: one.rows for i, one in begun},
                bytes={i: one.bytes for i, one in begun},
                slowest=None if slowest is None else (slowest, now - since),
            )
