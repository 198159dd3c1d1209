"""The clock of a stage: what its workers spend their time on, and how it adds up over many of them."""

from __future__ import annotations

import re
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from batchrunner.worker.cpu_time import CpuTime, process_cpu_time

_STATUS = Path("/proc/self/status")
_PEAK = re.compile(rb"VmHWM:\s+(\d+) kB")
_KIBIBYTE = 1 << 10


class StageKind(StrEnum):
    """Which part of the way from source to sink a clock belongs to."""

    READ = "read"
    """The threads of the workers that read the source."""
    STAGE = "stage"
    """A stage of the capability, or a capability without stages."""
    WRITE = "write"
    """The threads of the workers that write and commit the parts."""


class Doing(StrEnum):
    """What a worker is at; at every moment exactly one of these."""

    LOADING = "loading"
    """It imports and builds the capability."""
    WAITING_INPUT = "waiting_input"
    """It is ready, and what comes before it has no rows for it."""
    CALLING = "calling"
    """It is in the capability."""
    WAITING_OUTPUT = "waiting_output"
    """It has rows that what follows has no room for, or could have more if there were room."""
    NOTHING = "nothing"
    """It has no work, and none is on its way to it: this time is not counted."""


@dataclass(frozen=True, slots=True)
class StageClock:
    """What the workers of one stage have spent their time on so far. All times are in seconds.

    For each worker, `loading`, `waiting_input`, `calling` and `waiting_output` follow one another without a
    gap and never overlap: together they are the worker's time, and those of several workers are added.

    Attributes:
        name: Name of the stage; of a capability without stages, of its class or function.
        kind: Whether it is a stage, or the reading or the writing of the shards' workers.
        workers: Number of workers that the stage has now.
        loading: Time in which they imported and built the capability.
        waiting_input: Time in which they waited for rows.
        calling: Time in the capability, whether it computed or waited itself.
        waiting_output: Time in which what follows had no room for more rows.
        limited: How much of `calling` went by at the rate limit.
        cpu: CPU time of their processes in `calling`, which it may exceed; on the local engine, that of the
            one process which all stages share. None where it is not known.
        cpu_wait: For how long their threads were ready to compute meanwhile, and had no CPU; 0 where `cpu`, or
            this, is not known. Where it is much, their machine is full.
        rows: Number of rows that went in; one that is tried again may count again.
        calls: Number of batches that they were.
        peak_memory: The most bytes of memory that the process of any one worker has had; 0 if unknown.
    """

    name: str
    kind: StageKind = StageKind.STAGE
    workers: int = 1
    loading: float = 0.0
    waiting_input: float = 0.0
    calling: float = 0.0
    waiting_output: float = 0.0
    limited: float = 0.0
    cpu: float | None = None
    cpu_wait: float = 0.0
    rows: int = 0
    calls: int = 0
    peak_memory: int = 0

    @property
    def seconds(self) -> float:
        """The time of all workers together."""
        return self.loading + self.running

    @property
    def running(self) -> float:
        """The time of all workers together since each of them was ready."""
        return self.waiting_input + self.calling + self.waiting_output

    def plus(self, other: StageClock) -> StageClock:
        """Return the clock of the workers of both; name and kind are those of this one."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        known = [cpu for cpu in (self.cpu, other.cpu) if cpu is not None]
        return replace(
            self,
            **added,
            cpu=sum(known) if known else None,
            peak_memory=max(self.peak_memory, other.peak_memory),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, with times to the millisecond."""
        values = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }
        return {**values, "kind": self.kind.value}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Return the clock of what `to_dict` returned; fields that this version does not have are left out.

        Raises:
            KeyError, TypeError, ValueError: *stored* is no clock.
        """
        known = {one.name for one in fields(cls)}
        values = {name: value for name, value in dict(stored).items() if name in known}
        clock = cls(**{**values, "kind": StageKind(stored["kind"])})
        numbers = [getattr(clock, name) for name in (*_ADDED, "peak_memory")]
        numbers += [] if clock.cpu is None else [clock.cpu]
        is_named = isinstance(values["name"], str)
        if not is_named or not all(isinstance(n, int | float) for n in numbers):
            raise TypeError(f"not the clock of a stage: {stored}")
        return clock


_ADDED = (
    *("workers", "loading", "waiting_input", "calling", "waiting_output", "limited"),
    *("cpu_wait", "rows", "calls"),
)


def summed(clocks: Iterable[StageClock]) -> tuple[StageClock, ...]:
    """Return one clock for each stage, in the order in which the stages come first."""
    by_stage: dict[tuple[StageKind, str], StageClock] = {}
    for clock in clocks:
        key = clock.kind, clock.name
        by_stage[key] = by_stage[key].plus(clock) if key in by_stage else clock
    return tuple(by_stage.values())


class StageMeter:
    """Measures what one worker of a stage does: `at` is for one thread, `clock` for any.

    Attributes:
        name: Name of the stage; it may be set later.
    """

    def __init__(
        self,
        name: str,
        *,
        kind: StageKind = StageKind.STAGE,
        doing: Doing = Doing.NOTHING,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], CpuTime] | None = None,
    ) -> None:
        """Begin with what the worker is *doing*; *clock* counts the seconds that pass, *cpu* those of CPUs."""
        self.name, self._kind, self._clock = name, kind, clock
        self.measure_cpu(cpu)
        self._lock = threading.Lock()
        self._doing, self._since = doing, clock()
        self._seconds = dict.fromkeys(Doing, 0.0)
        self._rows = self._calls = 0
        self._cpu: CpuTime | None = None

    def measure_cpu(self, cpu: Callable[[], CpuTime] | None) -> None:
        """From the next turn to calling on, count what *cpu* says as the CPU time of calls; None: do not."""
        self._cpu_clock, self._cpu_since = cpu, CpuTime()

    def turn_to(self, doing: Doing) -> Doing:
        """From now on the worker is *doing* this; return what it did until now."""
        with self._lock:
            now, before = self._clock(), self._doing
            self._seconds[before] += now - self._since
            is_call = before is Doing.CALLING
            if self._cpu_clock is not None and (is_call or doing is Doing.CALLING):
                cpu = self._cpu_clock()
                if is_call:
                    self._cpu = _plus(self._cpu, cpu.since(self._cpu_since))
                self._cpu_since = cpu
            self._doing, self._since = doing, now
            return before

    def at(self, doing: Doing) -> AbstractContextManager[None]:
        """The worker is *doing* this inside the block, and after it what it did before."""
        return _At(self, doing)

    def count(self, *, rows: int, calls: int = 1, cpu: CpuTime | None = None) -> None:
        """Add *rows* that went into *calls*, which took *cpu*, if that is known."""
        with self._lock:
            self._rows += rows
            self._calls += calls
            if cpu is not None:
                self._cpu = _plus(self._cpu, cpu)

    def clock(self) -> StageClock:
        """Return the clock of this one worker until now, with the memory of this process."""
        with self._lock:
            seconds, rows, calls, cpu = self._seconds.copy(), self._rows, self._calls, self._cpu
            seconds[self._doing] += self._clock() - self._since
            if self._cpu_clock is not None and self._doing is Doing.CALLING:
                cpu = _plus(cpu, self._cpu_clock().since(self._cpu_since))
        return StageClock(
            self.name,
            self._kind,
            loading=seconds[Doing.LOADING],
            waiting_input=seconds[Doing.WAITING_INPUT],
            calling=seconds[Doing.CALLING],
            waiting_output=seconds[Doing.WAITING_OUTPUT],
            cpu=cpu.used if cpu else None,
            cpu_wait=cpu.waited if cpu else 0.0,
            rows=rows,
            calls=calls,
            peak_memory=peak_memory(),
        )


def _plus(one: CpuTime | None, more: CpuTime) -> CpuTime:
    return one.plus(more) if one else more


class _At:
    """As a generator it would take twice as long, several times for each batch."""

    __slots__ = ("_before", "_doing", "_meter")

    def __init__(self, meter: StageMeter, doing: Doing) -> None:
        self._meter, self._doing = meter, doing

    def __enter__(self) -> None:
        self._before = self._meter.turn_to(self._doing)

    def __exit__(self, *_: object) -> None:
        self._meter.turn_to(self._before)


class SharedMeter:
    """Measures several threads that call at the same time: at a call as long as at least one is going on."""

    def __init__(
        self,
        name: str,
        *,
        doing: Doing = Doing.NOTHING,
        cpu: Callable[[], CpuTime] = process_cpu_time,
    ) -> None:
        """Begin with what they are *doing*; *cpu* counts the seconds of CPUs that the process has."""
        self._meter = StageMeter(name, doing=doing, cpu=cpu)
        self._lock, self._calls = threading.Lock(), 0

    def loaded(self) -> None:
        """Note that the capability is built."""
        self._meter.turn_to(Doing.NOTHING)

    @contextmanager
    def call(self, rows: int) -> Iterator[None]:
        """A call with so many *rows* goes on inside the block."""
        with self._lock:
            self._calls += 1
            self._meter.turn_to(Doing.CALLING)
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._meter.count(rows=rows)
                self._meter.turn_to(Doing.CALLING if self._calls else Doing.NOTHING)

    def clock(self) -> StageClock:
        """Return the clock until now."""
        return self._meter.clock()


def peak_memory() -> int:
    """Return the most bytes of memory that this process has had."""
    try:
        # Not `ru_maxrss`, where there is this: a process that was forked has that of its parent.
        found = _PEAK.search(_STATUS.read_bytes())
    except OSError:
        found = None
    if found:
        return int(found[1]) * _KIBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIBIBYTE
