"""Gives each stage of one worker as many workers as it needs, of what the cluster has room for.

One worker of each stage comes first, those with an accelerator before all others: they load longest. What is
free besides is shared out, a few for each stage. From then on, what the calls take decides,
each half second. A worker that loads a model is not idle, and a stage only gives up workers that another
one can use.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence

from batchrunner.execute.stage_members import Phase
from batchrunner.execute.stage_pools import RayStagePool
from batchrunner.execute.stage_room import Amounts, Room, StageNeed, texts
from batchrunner.execute.stage_shares import StageLoad, shares

_SHORT = 0.5
"""For what share of the time calls must have waited in front of a stage that gets more workers."""

_AT_FIRST = 8
"""The most workers of a stage before its first call has ended: then it is known how many it needs. More
would start at the same time, each for longer, and perhaps for nothing."""

_PATIENCE = 30.0
"""Seconds in which a process should be there, on a busy machine, too. If not, others hold the room that
seemed free: as long again, no other worker is started."""

_log = logging.getLogger(__name__)


class Scaling:
    """Decides how many workers the stages have; all of it belongs to the thread of the pools."""

    def __init__(
        self, pools: Sequence[RayStagePool], room: Callable[[], Room], *, may_grow: bool
    ) -> None:
        """Prepare to scale.

        Args:
            pools: The pools of all stages, in order; filled before `begin`.
            room: Returns what the cluster has now.
            may_grow: Whether machines may join it.
        """
        self._pools, self._room, self._may_grow = pools, room, may_grow
        self._looked = self._not_before = time.monotonic()
        self.all_placed = threading.Event()
        self._has_warned = False

    def begin(self, *, at_once: bool) -> None:
        """Start the first workers of each stage, in the order of what takes longest to load.

        And others *at_once*, if there is much to do, and all of it is free at this moment.
        """
        loads = [self._load(at, at_once) for at in range(len(self._pools))]
        counts = shares(loads, self._fits())
        pools = sorted(
            zip(self._pools, counts, strict=True), key=lambda one: not one[0].need.has_accelerator
        )
        for pool, _ in pools:
            pool.staff.resize(pool.need.least)
        for pool, count in pools:
            pool.staff.resize(count)

    def changed(self) -> None:
        """Look whether all stages have their first workers, after one was placed or has failed."""
        is_first = not self.all_placed.is_set()
        is_over = any(pool.staff.failure for pool in self._pools)
        if is_first and (is_over or all(pool.staff.placed for pool in self._pools)):
            self.all_placed.set()
            for pool in self._pools:
                pool.fullness.begin(time.monotonic())  # what there is to do shows only now
            self.look()

    def look(self) -> None:
        """Give stages other numbers of workers, if that makes the pipeline faster."""
        now = time.monotonic()
        shorts = [pool.fullness.share(now) >= _SHORT for pool in self._pools]
        for pool in self._pools:
            pool.pace.fade(now - self._looked)
        self._looked = now
        if any(pool.staff.failure for pool in self._pools) or self._waits_for_room(now):
            return
        loads = [self._load(at, is_short) for at, is_short in enumerate(shorts)]
        counts = shares(loads, self._fits())
        if self._may_grow:
            counts = shares(loads, self._fits(beyond=sum(counts) + 1))
        self._resize(counts)

    def _waits_for_room(self, now: float) -> bool:
        """Return whether it is no time to plan; take back workers that keep the room of others."""
        starting = [pool for pool in self._pools if pool.staff.of(Phase.STARTING)]
        if missing := [pool for pool in self._pools if not pool.staff.placed]:
            if now - _oldest(missing, now) > _PATIENCE:
                self._warn_of(missing)
                self._take_back([pool for pool in starting if pool.staff.placed])
            return True
        oldest = _oldest(starting, now)
        if now - oldest > _PATIENCE and not (self._may_grow and _count(starting) == 1):
            self._take_back(starting)
            self._not_before = now + _PATIENCE
        return now < self._not_before

    def _warn_of(self, pools: Sequence[RayStagePool]) -> None:
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "no worker has started after %d s: the cluster has no room for %s. The run goes on waiting.",
                _PATIENCE,
                texts([pool.need for pool in pools]),
            )

    def _take_back(self, pools: Sequence[RayStagePool]) -> None:
        for pool in pools:
            pool.staff.resize(max(pool.staff.placed, pool.need.least))

    def _load(self, at: int, is_short: bool) -> StageLoad:
        pool = self._pools[at]
        before = self._pools[:at]
        seconds = pool.pace.seconds
        return StageLoad(
            workers=len(pool.staff.staying),
            least=pool.need.least,
            most=self._most(pool),
            seconds=None if seconds is None else seconds * math.prod(p.pace.growth for p in before),
            is_short=is_short,
            is_behind=any(p.need.has_accelerator and not p.pace.rows_in for p in before),
        )

    def _most(self, pool: RayStagePool) -> float:
        is_known = pool.pace.seconds is not None
        return pool.need.most if is_known else min(pool.need.most, max(pool.need.least, _AT_FIRST))

    def _fits(self, *, beyond: float = 0) -> Callable[[Sequence[int]], bool]:
        """Return what says whether counts of workers have room; up to *beyond* in all they always have."""
        room, free = self._room(), self._free()
        placed = [pool.staff.placed for pool in self._pools]
        needs = [pool.need for pool in self._pools]

        def fits(counts: Sequence[int]) -> bool:
            if sum(counts) <= beyond:
                return True
            more = [count - there for count, there in zip(counts, placed, strict=True)]
            return room.fits(needs, counts) and _is_free(free, needs, more)

        return fits

    def _free(self) -> Amounts:
        import ray

        free: Amounts = ray.available_resources()  # type: ignore[no-untyped-call]  # Ray is half typed
        return free

    def _resize(self, counts: Sequence[int]) -> None:
        wanted = [pool.staff.wanted for pool in self._pools]
        if all(count <= has for count, has in zip(counts, wanted, strict=True)):
            return  # none is missing: what is too many idles for free
        _log.info("stages get %s workers", counts, extra={"action": "stages_scaled"})
        # Fewer first: what they hold is what the others get.
        for pool, count in sorted(
            zip(self._pools, counts, strict=True), key=lambda p: p[1] - p[0].staff.wanted
        ):
            pool.staff.resize(count)


def _oldest(pools: Sequence[RayStagePool], now: float) -> float:
    """Return since when a worker of *pools* has waited for a process; *now* if none does."""
    waiting = (m.began for pool in pools for m in pool.staff.of(Phase.STARTING))
    return min(waiting, default=now)


def _count(pools: Sequence[RayStagePool]) -> int:
    return sum(len(pool.staff.of(Phase.STARTING)) for pool in pools)


def _is_free(free: Amounts, needs: Sequence[StageNeed], counts: Sequence[int]) -> bool:
    names = {name for need in needs for name in need.each}
    return all(
        sum(need.each.get(name, 0.0) * count for need, count in zip(needs, counts, strict=True))
        <= free.get(name, 0.0) + 1e-6
        for name in names
    )
