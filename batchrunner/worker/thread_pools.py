"""The workers of stages as threads of this process: for the engine `local`, and for calls made one by one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from batchrunner.spec import StageSpec
from batchrunner.worker.blocks import Block
from batchrunner.worker.lost_calls import CallTimedOutError
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.rate_gate import own_gate
from batchrunner.worker.stage_clock import Doing, SharedMeter, StageClock, StageMeter, summed
from batchrunner.worker.stage_pool import Span, StageAnswer, StagePool
from batchrunner.worker.stage_runner import StageRunner
from batchrunner.worker.work import Work

_MOST_BYTES = 256 << 20
_MOST_TICKETS = 64
_LEAVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ThreadPools:
    """Makes pools of threads.

    Attributes:
        work: What the stages belong to.
        meter: Counts what all calls use; None if that interests nothing.
        most_bytes: How many bytes the blocks may take.
    """

    work: Work
    meter: MeteredGate | None = None
    most_bytes: int = _MOST_BYTES
    most_tickets: int = _MOST_TICKETS
    is_apart: bool = False

    def of(self, number: int, stage: StageSpec) -> StagePool:
        """Return the pool of stage *number*, with its first worker, which is built here.

        Raises:
            CapabilityImportError: The stage cannot be imported or built.
        """
        timeout, meter = self.work.spec.errors.batch_timeout, self._meter_of(stage)
        return ThreadPool(
            stage.called,
            partial(StageRunner, self.work, number, meter=meter),
            most=_workers_of(stage),
            timeout=timeout,
            limited=lambda: meter.limited,
        )

    def _meter_of(self, stage: StageSpec) -> MeteredGate:
        gate = own_gate(stage.rate_limit)
        counted = self.meter.counting(gate) if self.meter else gate
        return MeteredGate.of(self.work.spec, counted, stage=stage)


def _workers_of(stage: StageSpec) -> int:
    """Return how many workers *stage* has: one by default, as code need not be made for threads."""
    wanted = stage.concurrency or 1
    return wanted if isinstance(wanted, int) else wanted[1]


@dataclass(frozen=True, slots=True)
class _Order:
    """A call that waits for a worker."""

    spans: Sequence[Span]
    answer: Future[StageAnswer]


class ThreadPool:
    """The workers of one stage, each a thread with a capability of its own. Blocks stay where they are."""

    def __init__(
        self,
        name: str,
        build: Callable[[], StageRunner],
        *,
        most: int,
        timeout: float | None = None,
        limited: Callable[[], float] = float,
    ) -> None:
        """Build one worker now, and others when they are needed, up to *most*.

        A call that takes longer than *timeout* seconds is left behind with its worker, which another one
        replaces. *limited* returns for how many seconds so far a call has waited at the rate limit.
        """
        self._limited = limited
        self._name, self._build, self._most, self._timeout = name, build, most, timeout
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._flying: list[Future[StageAnswer]] = []
        self._idle = Doing.NOTHING
        self._calls = SharedMeter(name)
        self._built: list[_Built] = []
        self._slots = 1
        self._threads: list[_StageThread] = []
        first = self._add()
        self._slots = first.get().slots  # raises here what its capability raises
        self._threads += [self._thread(first) for _ in range(self._slots - 1)]

    def _add(self) -> _Built:
        """Start a worker: as many threads as may call its capability at the same time."""
        self._built.append(_Built(self._build, self._calls))
        self._threads += [self._thread(self._built[-1]) for _ in range(self._slots)]
        return self._built[-1]

    def _thread(self, built: _Built) -> _StageThread:
        replace_it = partial(self._replace, built)
        meter = StageMeter(self._name, doing=Doing.LOADING)
        return _StageThread(built, self._orders, meter, timeout=self._timeout, on_lost=replace_it)

    def _replace(self, built: _Built) -> None:
        """Start a thread in place of one that was left behind."""
        self._threads.append(self._thread(built))

    def room(self) -> int:
        self._flying = [answer for answer in self._flying if not answer.done()]
        return 2 * self._most * self._slots - len(self._flying)

    def wants(self, rows: int, *, idle: Doing) -> None:
        if idle is not self._idle:
            self._idle = idle
            for thread in self._threads:
                thread.idle(idle)
        is_busy = len(self._flying) >= len(self._built) * self._slots
        if rows and is_busy and len(self._built) < self._most:
            self._add()

    def submit(self, spans: Sequence[Span]) -> Future[StageAnswer]:
        answer: Future[StageAnswer] = Future()
        self._flying.append(answer)
        self._orders.put(_Order(spans, answer))
        return answer

    def put(self, block: Block) -> Any:
        return block

    def get(self, span: Span) -> Block:
        block: Block = span.handle
        return block.slice(span.start, span.stop)

    def clock(self) -> StageClock:
        clocks = [thread.meter.clock() for thread in self._threads]
        # The first thread of a worker builds it, while others wait for that, or are not there yet.
        loading = sum(
            max((c.loading for c, t in zip(clocks, self._threads, strict=True) if t.built is built))
            for built in self._built
        )
        [clock], calls, workers = summed(clocks), self._calls.clock(), len(self._built)
        return replace(
            clock,
            workers=workers,
            loading=loading,
            waiting_input=clock.waiting_input / self._slots,
            calling=clock.calling / self._slots,
            waiting_output=clock.waiting_output / self._slots,
            limited=workers * self._limited(),
            cpu=calls.cpu,
            cpu_wait=calls.cpu_wait,
        )

    def close(self) -> None:
        """End the threads; one whose call hangs is left behind."""
        self._orders.put(None)
        if all(thread.has_ended() for thread in self._threads):
            for built in self._built:
                built.close()


class _Built:
    """The capability of one worker, built once, by the first of its threads.

    Attributes:
        calls: Measures the calls of all workers of the stage.
    """

    def __init__(self, build: Callable[[], StageRunner], calls: SharedMeter) -> None:
        self.calls = calls
        self._build, self._lock = build, threading.Lock()
        self._runner: StageRunner | None = None

    def get(self) -> StageRunner:
        """Return it.

        Raises:
            CapabilityImportError: It cannot be imported or built.
        """
        with self._lock:
            if self._runner is None:
                self._runner = self._build()
            return self._runner

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()


class _StageThread:
    """One thread of a pool.

    Attributes:
        built: The worker that it belongs to.
        is_lost: Whether it was left behind in a call.
        meter: What it spends its time on.
    """

    def __init__(
        self,
        built: _Built,
        orders: queue.SimpleQueue[_Order | None],
        meter: StageMeter,
        *,
        timeout: float | None,
        on_lost: Callable[[], None],
    ) -> None:
        self.built, self._orders, self.meter = built, orders, meter
        self._timeout, self._on_lost = timeout, on_lost
        self.is_lost = False
        self._when_idle = Doing.NOTHING
        self._is_idle = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="stage")
        self._thread.start()

    def idle(self, doing: Doing) -> None:
        """From now on the thread is *doing* this as long as it has no call."""
        self._when_idle = doing
        if self._is_idle:
            self.meter.turn_to(doing)

    def _run(self) -> None:
        with suppress(Exception):  # raised again for each call
            self.built.get()
        while not self.is_lost:
            self.meter.turn_to(self._when_idle)
            self._is_idle = True
            order = self._orders.get()
            self._is_idle = False
            if order is None:
                self._orders.put(None)  # for the next thread
                return
            rows = sum(map(len, order.spans))
            with self.meter.at(Doing.CALLING), self.built.calls.call(rows):
                self._answer(order)

    def _answer(self, order: _Order) -> None:
        with self._limited(order.answer):
            try:
                answer = _called(self.built.get(), order.spans)
            except BaseException as error:  # noqa: BLE001 - raised where answers are read
                outcome = partial(order.answer.set_exception, error)
            else:
                outcome = partial(order.answer.set_result, answer)
        self.meter.count(rows=sum(map(len, order.spans)))
        with suppress(InvalidStateError):  # time was up
            outcome()

    @contextmanager
    def _limited(self, answer: Future[StageAnswer]) -> Iterator[None]:
        """Leave the call inside the block behind when its time is up."""
        if self._timeout is None:
            yield
            return
        timer = threading.Timer(self._timeout, self._leave_behind, [answer])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _leave_behind(self, answer: Future[StageAnswer]) -> None:
        what = f"the call took more than {self._timeout:g} s, see errors.batch_timeout"
        with suppress(InvalidStateError):
            answer.set_exception(CallTimedOutError(what))
            self.is_lost = True
            self._on_lost()

    def has_ended(self) -> bool:
        """Return whether the thread has ended, after a moment; not if its call hangs."""
        self._thread.join(0.0 if self.is_lost else _LEAVE_SECONDS)
        return not self._thread.is_alive()


def _called(runner: StageRunner, spans: Sequence[Span]) -> StageAnswer:
    output = runner.run([span.handle.slice(span.start, span.stop) for span in spans])
    # A copy, as on a cluster: what the stage keeps of its output and changes must not reach the next one.
    block = output.block.copied()
    return StageAnswer(
        block if len(block) else None,
        len(block),
        block.nbytes,
        output.counts,
        output.failed,
        output.untried,
        output.seconds,
        output.usage,
    )
