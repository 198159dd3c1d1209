"""Calls a capability of mode `row`, row by row: a failure costs its row alone, an answer is asked for once.

A row that fails is tried again as `errors.retry` says. A service that refuses a call for now makes its row
wait; that is no attempt.

Code that fails every row must not be called for each of them: as long as no call has ever succeeded, the
first row of a batch that fails is its *probe*. While it is tried again no other row of a batch is, and once
its attempts are used up, the rows of batches are left alone until a row that is called alone has an answer.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.spec.execution import ErrorsSpec
from batchrunner.user_code import (
    Containment,
    free_memory_of,
    is_out_of_memory,
    presentable,
)
from batchrunner.worker.dividing import check_counts
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.gate import NO_GATE, CallOutcome, Gate
from batchrunner.worker.lost_calls import CallLostBesideError, CallLostError, timed_out
from batchrunner.worker.retrying import RetryPolicy, Trouble, not_waited_for, trouble_of
from batchrunner.worker.usage import NO_USAGE, Usage, added, usage_of_error
from batchrunner.worker.waiting import Waits


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a row: its answer.

    Attributes:
        rows: The rows that the capability gave for it: none, one or many.
        usage: What its calls used, failed ones included.
    """

    rows: Sequence[Row]
    usage: Usage = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """What came of a row: the error of its last attempt.

    Attributes:
        error: What the call raised; an `Exception` that stands for it if it is none.
        usage: What its calls used.
    """

    error: Exception
    usage: Usage = field(default_factory=dict)


RowOutcome = Answered | Failed | None
"""None for a row that was not called: no call has ever succeeded, and another row of its batch failed."""

RowAnswers = Callable[[], list[RowOutcome]]
"""Waits for the outcome of each row, in order."""


_NOTHING_USED = CallOutcome()


class RowCall:
    """One row on its way through the capability, over all its attempts, and its answer afterwards.

    Attributes:
        answer: Its answer; None as long as it has none.
        error: The error of its last attempt; None if there was none.
        attempts: How many attempts have failed.
        is_dropped: Whether it gets no other attempt.
        is_suspect: Whether its process ended with it and other calls in flight: it is then called alone.
        keep: Called with its answer, once.
        usage: What its attempts have used so far.
        brings_usage: Whether the row has usage already, which its answer may pass on.
    """

    __slots__ = (
        *("answer", "error", "attempts", "is_dropped", "most", "refused_at", "usage", "task"),
        *("keep", "is_suspect", "brings_usage", "_row", "_again"),
    )

    def __init__(self, row: Row | None, again: Callable[[], Row]) -> None:
        """Prepare the call with *row*, unless that is None; *again* returns it as the source has it."""
        self.answer: Answered | None = None
        self.error: Exception | None = None
        self.attempts, self.most, self.is_dropped = 0, 0, False
        self.refused_at: float | None = None
        self.usage: Usage = NO_USAGE
        self.brings_usage = False
        self.task: asyncio.Task[None] | None = None
        self.keep: Callable[[Answered], None] | None = None
        self.is_suspect = False
        self._row = row
        self._again = again

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing more to do for it, by what the latest start allowed."""
        return self.answer is not None or self.is_dropped or 0 < self.most <= self.attempts

    @property
    def outcome(self) -> RowOutcome:
        """What has come of it so far."""
        if self.answer is not None:
            return self.answer
        return None if self.error is None else Failed(self.error, self.usage)

    def take(self) -> Row:
        """Return the row, for one call."""
        row, self._row = self._row, None
        return self._again() if row is None else row

    def peek(self) -> Row:
        """Return the row as it is before its first call; do not change it."""
        if self._row is None:
            self._row = self._again()
        return self._row

    def forgive(self) -> None:
        """Forget failed attempts: the shard of the row is attempted again. Its answer stays."""
        if self.task is None or self.task.done():
            self.attempts, self.is_dropped, self.error, self.refused_at = 0, False, None, None


@dataclass(frozen=True, slots=True)
class RowRules:
    """What the spec says of the calls of a capability of mode `row`.

    Attributes:
        errors: How often to try a row, when, and for how long.
        max_concurrency: Calls in flight at a time, of all batches, if they are asynchronous.
        one_to_one: Whether each row has to give exactly one.
        usage_of: Returns what an answer used; None if that interests nothing.
        brings_usage: Returns whether a row has usage already; None if that does not matter.
    """

    errors: ErrorsSpec
    max_concurrency: int = 8
    one_to_one: bool = False
    usage_of: Callable[[Any], Usage] | None = None
    brings_usage: Callable[[Row], bool] | None = None


class CallPlace(Protocol):
    """Where asynchronous calls are made, such as a process that may have to be started first."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a block for one call, once it is its turn."""

    async def be_ready(self) -> None:
        """Wait until a call can be made at once."""


class _Here:
    """This process, where a call can always be made."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def be_ready(self) -> None:
        """Do nothing."""


class RowCalls:
    """Calls one capability with rows, in turn or, if it is asynchronous, with many at a time.

    Attributes:
        is_async: Whether `start` makes the calls; else reading the answers does.
        waits: How its calls wait; set its `stop`, so that a stop of the run ends them.
        place: Where asynchronous calls are made; set it if that is not this process.
    """

    def __init__(
        self,
        function: Any,
        kwargs: Mapping[str, Any],
        *,
        rules: RowRules,
        gate: Gate = NO_GATE,
        waits: Waits | None = None,
    ) -> None:
        """Prepare to call *function* with a row and *kwargs*.

        Args:
            function: The capability: a function, or an object that can be called.
            kwargs: Its keyword arguments.
            rules: What the spec says of calls.
            gate: What admits each call.
            waits: How to wait.
        """
        self._function, self._kwargs = function, kwargs
        self._policy, self._timeout = RetryPolicy(rules.errors.retry), rules.errors.row_timeout
        self._one_to_one, self._usage_of = rules.one_to_one, rules.usage_of
        self._brings_usage = rules.brings_usage
        self._gate = gate
        self.place: CallPlace = _Here()
        self.waits = waits or Waits()
        self.is_async = is_async(function)
        self._loop = EventLoop(rules.max_concurrency) if self.is_async else None
        self._has_succeeded = False
        self._probe: RowCall | None = None
        self._decided = threading.Event()
        """Set once there is no probe, its attempts are used up, or a call has succeeded."""
        self._decided.set()

    def call(self, rows: Sequence[Row], *, again: Callable[[int], Row]) -> list[RowOutcome]:
        """Call with each of *rows*, and return their outcomes; *again* returns the row of an index as it was.

        Raises:
            CallStoppedError: The run stops, and leaves no time for a wait.
        """
        return self.start([RowCall(row, partial(again, i)) for i, row in enumerate(rows)])()

    def start(self, calls: Sequence[RowCall], *, tries: int | None = None) -> RowAnswers:
        """Begin the *calls* if they are asynchronous; else reading the answers makes them.

        Those that have their answer, or used up their attempts, are not made again; those that an earlier
        start began are joined. The answers raise `CallStoppedError` if the run stops, and leaves no time for
        a wait.

        Args:
            calls: The rows of a batch.
            tries: How many attempts each row gets now; None for all that it has left.
        """
        for call in calls:
            call.most = self._policy.max_attempts
            if tries is not None:
                call.most = min(call.most, call.attempts + tries)
        if self._loop is None:
            return partial(self._in_turn, calls)
        return partial(self._read, calls, self._loop.submit(self._round(calls)))

    def close(self) -> None:
        """End the calls that are in flight, and the thread of their loop."""
        self._decided.set()
        if self._loop is not None:
            self._loop.close()

    def renew(self) -> None:
        """Begin another attempt at the rows that failed: what failed before decides nothing any more."""
        if not self._has_succeeded:
            self._probe = None
            self._decided.set()

    @property
    def doubt(self) -> Exception | None:
        """The error for which rows are left alone: that of the probe; None if there is none."""
        return None if self._has_succeeded or self._probe is None else self._probe.error

    @property
    def _is_hopeless(self) -> bool:
        return not self._has_succeeded and self._probe is not None and self._probe.is_settled

    def _in_turn(self, calls: Sequence[RowCall]) -> list[RowOutcome]:
        with Containment() as containment:
            for call in calls:
                if call.is_settled:
                    continue
                if len(calls) > 1 and self._is_hopeless:
                    break
                self._settle(call, containment)
                if not self._has_succeeded and self._probe is None and len(calls) > 1:
                    self._probe = call
        return [call.outcome for call in calls]

    def _settle(self, call: RowCall, containment: Containment) -> None:
        """Make attempts at *call* until it is settled."""
        wait: float | None = 0.0
        while wait is not None:
            if wait:
                self.waits.sleep(wait)
            while seconds := self._gate.enter():
                self.waits.sleep(seconds)
            wait = self._after(call, self._attempt(call, containment))

    def _attempt(self, call: RowCall, containment: Containment) -> Exception | None:
        """Call once; keep the answer, or return the error."""
        outcome = CallOutcome()
        try:
            answer = containment.call(self._answer, call)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            outcome = self._refused(call, error)
            return error
        else:
            outcome = self._accepted(call, answer)
            return None
        finally:
            self._gate.leave(outcome)

    def _answer(self, call: RowCall) -> Sequence[Row]:
        return self._checked(fanned_out(self._function(self._taken(call), **self._kwargs)))

    def _taken(self, call: RowCall) -> Row:
        row = call.take()
        call.brings_usage = self._brings_usage is not None and self._brings_usage(row)
        return row

    def _checked(self, rows: Sequence[Row]) -> Sequence[Row]:
        if self._one_to_one:
            check_counts([len(rows)], [1])
        return rows

    def _accepted(self, call: RowCall, answer: Sequence[Row]) -> CallOutcome:
        reads = self._usage_of if not call.brings_usage else None
        used = reads(answer) if reads else NO_USAGE
        if used or call.usage:
            call.usage = added(call.usage, used)
        call.answer = Answered(answer, call.usage)
        if call.keep is not None:
            call.keep(call.answer)
        if not self._has_succeeded:
            self._has_succeeded = True
            self._decided.set()
        return CallOutcome(used) if used else _NOTHING_USED

    def _refused(self, call: RowCall, error: Exception) -> CallOutcome:
        if is_out_of_memory(error):  # before the next call, which needs the room
            free_memory_of(error)
        trouble, used = _trouble(error), usage_of_error(error)
        if used:
            call.usage = added(call.usage, used)
        return CallOutcome(used, trouble.is_refused, trouble.pause_of_all)

    def _after(self, call: RowCall, error: Exception | None) -> float | None:
        """Note that an attempt raised *error*; return the seconds until the next; None if there is none."""
        if error is None:
            return None
        if isinstance(error, CallLostBesideError):
            call.is_suspect = True
            return None
        trouble, now = _trouble(error), self._policy.clock()
        call.refused_at = now if call.refused_at is None else call.refused_at
        waited = now - call.refused_at
        wait = self._policy.wait(trouble, waited=waited)
        if wait is not None:
            return wait
        call.error, call.attempts = error, call.attempts + 1
        # What ends its process is not tried again: a try would cost another process. Nor is an engine that is
        # lost for good: no row can succeed.
        is_lost = isinstance(error, CallLostError | CapabilityImportError)
        call.is_dropped = is_lost or not self._policy.may_retry(error, trouble)
        if trouble.retry_after is not None and self._policy.is_too_long(trouble, waited=waited):
            call.is_dropped = True
            call.error = not_waited_for(error, trouble, max_wait=self._policy.max_wait)
        return None if call.is_settled else self._policy.pause(call.attempts, trouble)

    def _read(self, calls: Sequence[RowCall], begun: Future[None]) -> list[RowOutcome]:
        begun.result()
        while self._loop and not all(call.is_settled for call in calls):
            if len(calls) > 1:
                self._decided.wait()
                if not self._has_succeeded and self._probe is not None:
                    break
            self._loop.submit(self._round(calls)).result()
        return [call.outcome for call in calls]

    async def _round(self, calls: Sequence[RowCall]) -> None:
        """Settle *calls*; as long as no call has succeeded, perhaps not all."""
        is_alone = len(calls) == 1
        for call in calls:
            if not call.is_settled and (call.task is None or call.task.done()):
                call.task = asyncio.ensure_future(self._settle_later(call, is_alone=is_alone))
        tasks = [call.task for call in calls if call.task is not None and not call.task.done()]
        await asyncio.gather(*tasks)

    async def _settle_later(self, call: RowCall, *, is_alone: bool) -> None:
        assert self._loop is not None  # noqa: S101 - for the type checker
        wait: float | None = 0.0
        try:
            async with self._loop.places(alone=call.is_suspect):
                while wait is not None and (is_alone or not self._is_parked(call)):
                    if wait:
                        await self.waits.sleep_later(wait)
                    async with self.place.turn():
                        await self._enter()
                        error = await self._attempt_later(call)
                    wait = self._after(call, error)
                    if not is_alone:
                        self._probe_with(call)
        finally:
            if call is self._probe:
                self._decided.set()

    def _is_parked(self, call: RowCall) -> bool:
        """Return whether *call* has to wait for what comes of the probe."""
        return not self._has_succeeded and self._probe not in {None, call}

    def _probe_with(self, call: RowCall) -> None:
        if not self._has_succeeded and self._probe is None and call.attempts:
            self._probe = call
            if not call.is_settled:
                self._decided.clear()

    async def _enter(self) -> None:
        """Wait for the gate; a place that is ready comes first, or calls that waited for it would go out together."""
        await self.place.be_ready()
        while seconds := self._gate.enter():
            await self.waits.sleep_later(seconds)
            await self.place.be_ready()

    async def _attempt_later(self, call: RowCall) -> Exception | None:
        outcome = CallOutcome()
        try:
            answer = await self._answer_later(call)
        except CapabilityImportError:  # of its process: no call can be made
            raise
        except BaseException as error:
            if self._loop is not None and self._loop.is_closing:
                raise
            failure = presentable(error)
            if failure is not error:
                failure.__cause__ = error
            outcome = self._refused(call, failure)
            return failure
        else:
            outcome = self._accepted(call, answer)
            return None
        finally:
            self._gate.leave(outcome)

    async def _answer_later(self, call: RowCall) -> Sequence[Row]:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return self._checked(fanned_out(await self._result(self._taken(call))))
        except TimeoutError as error:
            if not limit.expired():  # the user's own
                raise
            raise timed_out(self._timeout) from error

    async def _result(self, row: Row) -> Any:
        result = self._function(row, **self._kwargs)
        if isinstance(result, AsyncIterator):
            return [piece async for piece in result]
        return await result


def _trouble(error: Exception) -> Trouble:
    try:
        return trouble_of(error)
    except Exception:  # noqa: BLE001 - attributes of an error are the user's code, too
        return Trouble()


def is_async(capability: Any) -> bool:
    """Return whether a call of *capability* gives something to await or to iterate over asynchronously."""
    call = capability if inspect.isroutine(capability) else type(capability).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def fanned_out(result: Any) -> Sequence[Row]:
    """Return *result*, the answer for one row, as a list of rows: none, one or many.

    Raises:
        TypeError: It is no row, and no rows.
    """
    if isinstance(result, dict):
        return [result]
    if result is None:
        return []
    if isinstance(result, list | tuple):
        return result
    if isinstance(result, Iterator):
        return list(result)
    raise TypeError(
        f"the capability returned {type(result).__name__} for a row; it must return a dict, a list "
        "of dicts, or None"
    )
