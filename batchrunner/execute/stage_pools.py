"""One stage's workers on Ray, as the worker of the shards calls them: which worker gets which call."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from batchrunner.errors import describe
from batchrunner.execute.ray_connection import is_lost
from batchrunner.execute.stage_actors import Answered
from batchrunner.execute.stage_blocks import pack, unpack
from batchrunner.execute.stage_clock import Fullness, Hours, Pace
from batchrunner.execute.stage_members import Call, Kept, Member, Phase, best
from batchrunner.execute.stage_room import StageNeed
from batchrunner.execute.stage_staff import Staff, kill, last_words, when
from batchrunner.execute.stage_thread import PoolThread
from batchrunner.worker.blocks import Block
from batchrunner.worker.lost_calls import CallLostError, CallTimedOutError
from batchrunner.worker.stage_clock import Doing, StageClock
from batchrunner.worker.stage_pool import RowsLostError, Span, StageAnswer
from batchrunner.worker.usage import Usage, beyond

_MOST_DEATHS = 2
"""After so many workers that died over it, a call is lost."""


@dataclass(frozen=True, slots=True)
class Events:
    """What a pool calls.

    Attributes:
        changed: When a worker was placed, is ready, or died, or none can be; in the thread of the pools.
        closed: When the pool was closed.
        used: When calls have used something.
    """

    changed: Callable[[], None]
    closed: Callable[[], None]
    used: Callable[[Usage], None]


class RayStagePool:
    """The workers of one stage. What begins with `_` is for the thread of the pools."""

    def __init__(
        self,
        need: StageNeed,
        create: Callable[[], Any],
        *,
        thread: PoolThread,
        on: Events,
        timeout: float | None,
    ) -> None:
        """Prepare a pool without workers.

        Args:
            need: The stage, and what it needs.
            create: Starts an actor.
            thread: Where the pool changes.
            on: What it calls.
            timeout: Longest time that a call may take, in seconds; None for no limit.
        """
        self.stage, self.need = need.stage, need
        self.pace, self.fullness = Pace(), Fullness(time.monotonic())
        self._thread, self._on, self._timeout = thread, on, timeout
        self.staff = Staff(need.stage, create, thread=thread, changed=self._changed)
        self._waiting: deque[Call] = deque()
        self._counting = threading.Lock()
        self._on_way = 0
        self._hours = Hours(need.stage.called, time.monotonic())

    def room(self) -> int:
        """Return how many more calls it takes now."""
        return self.staff.slots - self._on_way

    def wants(self, rows: int, *, idle: Doing) -> None:  # noqa: ARG002 - the calls that wait are what counts here
        """Note what a worker without a call is at."""
        self._hours.note_idle(time.monotonic(), idle)

    def submit(self, spans: Sequence[Span]) -> Future[StageAnswer]:
        """Start a call with the rows of *spans*."""
        call = Call(spans)
        self._count(1)
        self._thread.do(partial(self._take, call))
        return call.answer

    def put(self, block: Block) -> Kept:
        """Put *block* into the object store of this machine."""
        import ray

        return Kept(ray.put(pack(block)), ray.get_runtime_context().get_node_id())

    def get(self, span: Span) -> Block:
        """Return the rows of *span*.

        Raises:
            RowsLostError: They were lost with their node.
        """
        import ray

        try:
            packed = ray.get(span.handle.ref)
        except ray.exceptions.ObjectLostError as error:
            raise self._lost_block(error) from error
        return unpack(packed, span.start, span.stop)

    def clock(self) -> StageClock:
        """Return how the workers spent their time so far."""
        return self._hours.clock(time.monotonic())

    def close(self) -> None:
        """End the workers."""
        self._on.closed()

    def look(self) -> None:
        """End the workers whose calls take too long. In the thread of the pools."""
        if self._timeout is None:
            return
        before = time.monotonic() - self._timeout
        for member in [*self.staff.members]:
            if late := member.late(before):
                member.is_excused = True  # the other calls that it has did nothing
                late.is_answered = True
                self._finish(late, CallTimedOutError(self._timed_out()))
                kill(member.actor)

    def fail(self, error: Exception) -> None:
        """Fail all calls with *error*. In the thread of the pools."""
        given = (call for member in self.staff.members for call in member.calls)
        for call in [*self._waiting, *given]:
            if not call.is_answered:
                call.is_answered = True
                self._finish(call, error)
        self._waiting.clear()

    def _timed_out(self) -> str:
        return f"the call took more than {self._timeout:g} s, see errors.batch_timeout"

    def _count(self, calls: int) -> None:
        with self._counting:
            self._on_way += calls
        self.fullness.note(time.monotonic(), is_full=self.room() <= 0)

    def _changed(self) -> None:
        self._dispatch()
        self._on.changed()

    def _take(self, call: Call) -> None:
        self._waiting.append(call)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._waiting and self.staff.failure is not None:
            self._finish(self._waiting.popleft(), self.staff.failure)
        while self._waiting and (member := best(self.staff.members, self._waiting[0])):
            self._hand(member, self._waiting.popleft())
        ready = self.staff.of(Phase.READY)
        idle = sum(not member.calls for member in ready)
        self._hours.note_workers(time.monotonic(), ready=len(ready), idle=idle)

    def _hand(self, member: Member, call: Call) -> None:
        handles = {id(span.handle): span.handle for span in call.spans}
        numbers = {key: number for number, key in enumerate(handles)}
        cuts = [(numbers[id(span.handle)], span.start, span.stop) for span in call.spans]
        # At the top level of the arguments, so that Ray brings the blocks to the worker's machine before
        # the call begins, while the one before it runs.
        blocks = [handle.ref for handle in handles.values()]
        answered, block = member.actor.run.options(num_returns=2).remote(cuts, *blocks)
        member.begin(call, time.monotonic())
        when(answered, partial(self._answered, member, call, block), thread=self._thread)

    def _answered(self, member: Member, call: Call, block: Any, done: Any) -> None:
        from ray.exceptions import RayActorError

        member.end(call, time.monotonic())
        error = done.exception()
        if call.is_answered:
            self._lose(member, error)
        elif error is None:
            self._accept(member, call, Kept(block, member.node), done.result())
        elif isinstance(error, RayActorError):
            self._lose(member, error)
            self._again(call, member, error)
        else:
            self._finish(call, self._error_of(error))
        if member.phase is Phase.LEAVING and not member.calls:
            self.staff.end(member)
        self._dispatch()

    def _lose(self, member: Member, error: BaseException | None) -> None:
        if error is not None:
            self.staff.lose(member, error)

    def _accept(self, member: Member, call: Call, kept: Kept, answered: Answered) -> None:
        busy, answer = self._hours.add(member.worker, answered.clock), answered.answer
        self._on.used(beyond(answered.used, member.used))
        member.used = answered.used
        if isinstance(answer, Exception):
            self._finish(call, answer)
            return
        self.pace.add(rows_in=sum(map(len, call.spans)), rows_out=answer.rows, busy=busy)
        self._finish(call, replace(answer, handle=kept) if answer.rows else answer)

    def _again(self, call: Call, member: Member, error: BaseException) -> None:
        """Try *call*, which *member* had when it died, on another worker, unless two have died over it."""
        call.deaths += not (member.is_excused or is_lost(member.node))
        if call.deaths < _MOST_DEATHS:
            self._waiting.appendleft(call)
            return
        died = f"stage {self.stage.called!r}: {call.deaths} of its workers died during the call"
        self._finish(call, CallLostError(f"{died}: {last_words(error)}"))

    def _error_of(self, error: BaseException) -> Exception:
        from ray.exceptions import ObjectLostError

        cause = getattr(error, "cause", error)
        if isinstance(error, ObjectLostError) or isinstance(cause, ObjectLostError):
            return self._lost_block(error)
        return error if isinstance(error, Exception) else RuntimeError(describe(error))

    def _lost_block(self, error: BaseException) -> RowsLostError:
        return RowsLostError(
            f"stage {self.stage.called!r}: rows on their way were lost with their node: {last_words(error)}"
        )

    def _finish(self, call: Call, end: StageAnswer | Exception) -> None:
        self._count(-1)
        if not call.answer.set_running_or_notify_cancel():
            return
        if isinstance(end, Exception):
            call.answer.set_exception(end)
        else:
            call.answer.set_result(end)
