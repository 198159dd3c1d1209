"""The workers of one stage on Ray: started, placed, loaded, replaced when they die, and ended.

Actors die with the process that made them, so no stage worker outlives the worker of its shards. Ray
restarts none: the pool would not know which calls were lost.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from batchrunner.errors import CapabilityImportError
from batchrunner.execute.payload import Payload
from batchrunner.execute.ray_connection import is_lost
from batchrunner.execute.stage_actors import OWN_THREADS, Loaded, StageActor
from batchrunner.execute.stage_members import CALLS_EACH, Member, Phase
from batchrunner.execute.stage_room import StageNeed
from batchrunner.execute.stage_thread import PoolThread
from batchrunner.spec import StageSpec

_MOST_LOADS = 3
"""After so many workers that died, one after the other, while they built the capability, none can."""

_ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Staff:
    """The workers of one stage; all of it belongs to the thread of the pools.

    Attributes:
        members: The workers that have not ended.
        wanted: How many there should be.
        failure: Why there can be none.
    """

    def __init__(
        self,
        stage: StageSpec,
        create: Callable[[], Any],
        *,
        thread: PoolThread,
        changed: Callable[[], None],
    ) -> None:
        """Prepare a staff without workers.

        Args:
            stage: The stage.
            create: Starts an actor.
            thread: Where the staff changes.
            changed: Called when a worker was placed, is ready, or died, or none can be.
        """
        self.members: list[Member] = []
        self.wanted = 0
        self.failure: CapabilityImportError | None = None
        self._stage, self._create = stage, create
        self._thread, self._changed = thread, changed
        self._died_loading = 0

    @property
    def slots(self) -> int:
        """How many calls the workers take, those included that are not ready yet."""
        return sum(m.most for m in [*self.members] if m.phase is not Phase.LEAVING)

    def of(self, *phases: Phase) -> list[Member]:
        """Return the members in one of *phases*."""
        return [member for member in self.members if member.phase in phases]

    @property
    def staying(self) -> list[Member]:
        """The members that are not leaving."""
        return self.of(Phase.STARTING, Phase.LOADING, Phase.READY)

    @property
    def placed(self) -> int:
        """How many have a process, and hold what they reserve."""
        return len(self.members) - len(self.of(Phase.STARTING))

    def resize(self, wanted: int) -> None:
        """Have *wanted* workers from now on: start some, or let some go, those first that are not at work."""
        self.wanted = wanted
        while len(self.staying) < wanted and self.failure is None:
            self._start()
        surplus = len(self.staying) - wanted
        for member in sorted(self.staying, key=_use)[: max(surplus, 0)]:
            self._let_go(member)

    def _start(self) -> None:
        member = Member(self._create(), time.monotonic())
        self.members.append(member)
        self._when(member.actor.place.remote(), partial(self._placed, member))
        self._when(member.actor.load.remote(), partial(self._loaded, member))
        # Answered when it ends: a worker that dies without a call is noticed, too.
        self._when(member.actor.stay.remote(), partial(self._ended, member))

    def _when(self, reference: Any, then: Callable[[Any], None]) -> None:
        when(reference, then, thread=self._thread)

    def _placed(self, member: Member, done: Any) -> None:
        if self._is_alive(member, done) and member.phase is Phase.STARTING:
            where = done.result()
            member.phase, member.node, member.worker = Phase.LOADING, where.node, where.worker
            self._changed()

    def _loaded(self, member: Member, done: Any) -> None:
        if not self._is_alive(member, done) or member.phase not in {Phase.STARTING, Phase.LOADING}:
            return
        loaded: Loaded = done.result()
        if loaded.failure:
            self._fail(loaded.failure)
            return
        self._died_loading = 0
        member.phase = Phase.READY
        if loaded.calls > 1:
            member.most = loaded.calls + CALLS_EACH - 1
        self._changed()

    def _ended(self, member: Member, done: Any) -> None:
        self._is_alive(member, done)

    def _is_alive(self, member: Member, done: Any) -> bool:
        """Return whether *member* answered; it is lost if not."""
        error = done.exception()
        if error is not None:
            self.lose(member, error)
        return error is None and member.phase is not Phase.GONE

    def lose(self, member: Member, error: BaseException) -> None:
        """Replace *member*, which died of *error*. Idempotent."""
        if member.phase is Phase.GONE:
            return
        was_loading = member.phase in {Phase.STARTING, Phase.LOADING}
        self._forget(member)
        kill(member.actor)  # Ray may have lost sight of it only
        _log.warning(
            "a worker of stage %r died (%s)", self._stage.called, member.worker or "starting"
        )
        if was_loading and not (member.node and is_lost(member.node)):
            self._died_loading += 1
        if self._died_loading >= _MOST_LOADS:
            self._fail(
                f"stage {self._stage.called!r}: {_MOST_LOADS} workers died, one after the other, while they "
                f"built its capability: {last_words(error)}"
            )
        else:
            self.resize(self.wanted)
            self._changed()

    def _fail(self, reason: str) -> None:
        self.failure = CapabilityImportError(reason)
        self._changed()

    def _let_go(self, member: Member) -> None:
        member.phase = Phase.LEAVING
        if not member.calls:
            self.end(member)

    def end(self, member: Member) -> None:
        """End *member*, which has no calls."""
        was_placed = bool(member.worker)
        self._forget(member)
        if was_placed:
            member.actor.end.remote()
            member.actor = None  # the last handle: Ray ends it once that call is answered
        else:
            kill(member.actor)

    def _forget(self, member: Member) -> None:
        member.phase = Phase.GONE
        with contextlib.suppress(ValueError):
            self.members.remove(member)

    def ask(self, method: str) -> list[Any]:
        """Call *method* of each worker that has a process; return what Ray gives for the answers."""
        members = [m for m in [*self.members] if m.worker and m.phase is not Phase.GONE]
        return [getattr(member.actor, method).remote() for member in members]

    def kill(self) -> None:
        """End all workers at once."""
        for member in self.members:
            kill(member.actor)
        self.members = []


def _use(member: Member) -> tuple[int, int]:
    """Return how much would be lost if *member* left: those that only start leave first."""
    order = [Phase.STARTING, Phase.LOADING, Phase.READY]
    return order.index(member.phase), len(member.calls)


def when(reference: Any, then: Callable[[Any], None], *, thread: PoolThread) -> None:
    """Call *then* with a future of *reference* in *thread*, once Ray has it."""
    # Ray calls back in its own thread, which must not wait and must not call Ray.
    reference.future().add_done_callback(lambda done: thread.do(partial(then, done)))


def kill(actor: Any) -> None:
    """End the process of *actor* at once, if there is one. Never raises."""
    import ray

    with contextlib.suppress(Exception):
        ray.kill(actor)


def ask_all(staffs: Sequence[Staff], method: str) -> None:
    """Call *method* of all workers of *staffs*; wait a few seconds for the answers. Never raises."""
    import ray

    with contextlib.suppress(Exception):
        asked = [answer for staff in staffs for answer in staff.ask(method)]
        ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_SECONDS)


def actor_of(need: StageNeed, number: int, *, payload: Payload) -> Any:
    """Start a worker of the stage of that *number*, which reserves what *need* says."""
    import ray

    each = dict(need.each)
    calls = max(need.stage.max_concurrency or 1, CALLS_EACH)
    actor: Any = ray.remote(StageActor)
    return actor.options(
        num_cpus=each.pop("CPU", 0),
        num_gpus=each.pop("GPU", 0),
        memory=each.pop("memory", None),
        resources=each or None,
        max_restarts=0,
        max_concurrency=calls + OWN_THREADS,
    ).remote(payload, number)


def last_words(error: BaseException) -> str:
    """Return the last line of Ray's text about *error*: those before it are about Ray."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
