"""Meters the calls of one worker: what they use, whatever becomes of it, and how long they wait for the gate."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from batchrunner.spec import BatchSpec, StageSpec
from batchrunner.worker.gate import NO_GATE, CallOutcome, Gate
from batchrunner.worker.retrying import Trouble, trouble_of
from batchrunner.worker.usage import (
    NO_USAGE,
    Usage,
    added,
    path_of,
    priced,
    usage_in,
    usage_of_error,
    usages_in,
)
from batchrunner.worker.waiting import Waits


class _Counted:
    """A gate whose outcomes a meter counts that others share."""

    def __init__(self, gate: Gate, meter: MeteredGate) -> None:
        self._gate, self._meter = gate, meter

    @property
    def is_open(self) -> bool:
        return self._gate.is_open

    def enter(self) -> float:
        return self._gate.enter()

    def leave(self, outcome: CallOutcome) -> None:
        self._gate.leave(outcome)
        self._meter.count(outcome.usage)


@dataclass(frozen=True, slots=True)
class Metered:
    """What a call returned, and what it used.

    Attributes:
        answer: What the capability returned, one or, of a generator, several things.
        usage: What the call used.
    """

    answer: list[Any]
    usage: Usage


class MeteredGate:
    """Passes calls on to the gate of the worker, and counts. Safe in several threads."""

    def __init__(
        self,
        gate: Gate = NO_GATE,
        *,
        usage_at: str | None = None,
        prices: Mapping[str, float] | None = None,
        max_wait: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Meter what passes *gate*, whose answers have their usage at the path *usage_at*.

        A service that wants no call for longer than *max_wait* seconds stops no worker: no row would wait for it.
        """
        self._max_wait = max_wait
        self._gate, self._clock, self._prices = gate, clock, prices or {}
        self._path, self._is_given = path_of(usage_at), usage_at is not None
        self._lock = threading.Lock()
        self._used: Usage = NO_USAGE
        self._limited = self._limited_until = 0.0

    @classmethod
    def of(cls, spec: BatchSpec, gate: Gate, *, stage: StageSpec | None = None) -> Self:
        """Return the meter of a worker that works by *spec*, at *stage* of it if it has stages."""
        at = spec.called.usage
        prices, max_wait = spec.execution.prices, spec.errors.retry.max_wait
        meter = cls(gate, usage_at=(stage and stage.usage) or at, prices=prices, max_wait=max_wait)
        # What is said for all stages says of none that what it passes on is its own.
        meter._is_given = (at if stage is None else stage.usage) is not None
        return meter

    @property
    def used(self) -> Usage:
        """What all calls so far have used, with its cost."""
        with self._lock:
            return priced(self._used, self._prices)

    @property
    def limited(self) -> float:
        """For how many seconds so far at least one call has waited for the gate."""
        with self._lock:
            return self._limited - max(self._limited_until - self._clock(), 0.0)

    def enter(self) -> float:
        wait = self._gate.enter()
        if wait:
            with self._lock:
                now = self._clock()
                until = max(now + wait, self._limited_until)
                self._limited += until - max(now, self._limited_until)
                self._limited_until = until
        return wait

    def leave(self, outcome: CallOutcome) -> None:
        if outcome.retry_after > self._max_wait:
            outcome = replace(outcome, retry_after=0.0)
        self._gate.leave(outcome)
        if outcome.usage:
            with self._lock:
                self._used = added(self._used, outcome.usage)

    def count(self, usage: Usage) -> None:
        """Count *usage* of calls that another process has made."""
        with self._lock:
            self._used = added(self._used, usage)

    def counting(self, gate: Gate) -> Gate:
        """Return *gate*, one of several in this worker, as one whose usage this meter counts, too."""
        return _Counted(gate, self)

    @property
    def is_open(self) -> bool:
        return self._gate.is_open

    @property
    def usage_key(self) -> str:
        """The key without which a row surely has no usage."""
        return self._path[0]

    def brings_usage(self, argument: Any) -> bool:
        """Return whether *argument* of a call has what looks like the usage of an answer.

        It is that of an earlier run, and may be passed on. Where the spec says where usage is, it counts.
        """
        return not self._is_given and bool(usage_in(argument, self._path))

    def usage_in(self, answer: Any) -> Usage:
        """Return what *answer* says that it used."""
        return usage_in(answer, self._path)

    def usages_in(self, content: Any) -> list[Usage]:
        """Return what each row of *content* says that it used; [] if none does."""
        return usages_in(content, self._path)

    def close(self) -> None:
        """End the gate."""
        close = getattr(self._gate, "close", None)
        if close is not None:
            close()


class Admission:
    """Admits the calls of one capability in turn with all others of the run."""

    def __init__(self, meter: MeteredGate, waits: Waits) -> None:
        self.meter, self.waits = meter, waits

    def usage_in(self, answer: list[Any]) -> Usage:
        """Return what the parts of *answer* say that they used."""
        return added(*(self.meter.usage_in(part) for part in answer))

    def call(self, argument: Any, call: Callable[[], list[Any]]) -> Metered:
        """Make *call* with *argument* as soon as the gate admits it.

        Raises what it raises; `CallStoppedError` if the run stops before.
        """
        with self.admitted() as admitted:
            counts = not self.meter.brings_usage(argument)  # now: the call may change it
            answer = call()
            admitted.usage = self.usage_in(answer) if counts else NO_USAGE
        return Metered(answer, admitted.usage)

    async def call_later(self, argument: Any, call: Callable[[], Awaitable[list[Any]]]) -> Metered:
        """Do as `call`, in an event loop."""
        while seconds := self.meter.enter():
            await self.waits.sleep_later(seconds)
        with Admitted(self.meter) as admitted:
            counts = not self.meter.brings_usage(argument)
            answer = await call()
            admitted.usage = self.usage_in(answer) if counts else NO_USAGE
        return Metered(answer, admitted.usage)

    def admitted(self) -> Admitted:
        """Return a block for one call, once the gate admits it."""
        while seconds := self.meter.enter():
            self.waits.sleep(seconds)
        return Admitted(self.meter)


class Admitted:
    """A call that the gate has admitted: leaves it at the end of the block, whatever was raised.

    Attributes:
        usage: What the call used, set in the block.
    """

    def __init__(self, meter: MeteredGate) -> None:
        self._meter, self.usage = meter, NO_USAGE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        outcome = CallOutcome(self.usage) if error is None else outcome_of_error(error)
        self._meter.leave(outcome)


def outcome_of_error(error: BaseException) -> CallOutcome:
    """Return what a call came to that raised *error*."""
    try:
        trouble = trouble_of(error)
    except Exception:  # noqa: BLE001 - attributes of an error are the user's code, too
        trouble = Trouble()
    return CallOutcome(usage_of_error(error), trouble.is_refused, trouble.pause_of_all)
