"""The stages of one worker of shards on Ray: makes their pools, and ends them."""

from __future__ import annotations

import logging

from batchrunner.errors import describe
from batchrunner.execute.payload import Payload
from batchrunner.execute.stage_pools import Events, RayStagePool
from batchrunner.execute.stage_room import Room, needs_of
from batchrunner.execute.stage_scaling import Scaling
from batchrunner.execute.stage_staff import Staff, actor_of, ask_all
from batchrunner.execute.stage_thread import PoolThread
from batchrunner.execute.workers import workers_with_stages
from batchrunner.spec import StageSpec
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.usage import Usage
from batchrunner.worker.work import Work

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_LEAVE_SECONDS = 2.0
_MUCH = 64 << 10
"""Bytes of the source from which on workers are started before it is known how many are needed."""

_SHARE_OF_STORE = 0.3
"""Share of the object store that what is on its way may take: as much again is output that has just been
made, and input of calls that are at work; Ray spills to disk at 0.8."""


class StagesOnRay:
    """Makes the pools of all stages, which share the room of the cluster. Has what `Pools` promises.

    Attributes:
        most_tickets: How many batches of the source may be on their way.
        is_apart: That the stages have processes of their own.
    """

    most_tickets = 1024
    is_apart = True

    def __init__(self, work: Work, payload: Payload, pulse: Pulse) -> None:
        """Look what there is room for; *pulse* gets what calls use. Starts no worker yet.

        Raises:
            RayUnavailableError: There is no room for the fewest workers of all stages.
        """
        spec, self._is_much = work.spec, work.weight >= _MUCH
        self._workers, may_grow = workers_with_stages(spec.execution), spec.ray.address != "local"
        self._pulse, self._payload, self._timeout = pulse, payload, spec.errors.batch_timeout
        self._needs = needs_of(spec.stages, self._room(), may_grow=may_grow)
        self._thread = PoolThread(self._look, seconds=_LOOK_SECONDS, failed=self._failed)
        self._pools: list[RayStagePool] = []
        self._open = 0
        self._scaling = Scaling(self._pools, self._room, may_grow=may_grow)

    @property
    def most_bytes(self) -> int:
        """How many bytes may be on their way between the stages."""
        there = self._room().total.get("object_store_memory", 0.0)
        return int(there * _SHARE_OF_STORE / self._workers)

    def of(self, number: int, _: StageSpec) -> RayStagePool:
        """Return the pool of the stage of that *number*; the workers start with the last pool."""
        need = self._needs[number]
        pool = RayStagePool(
            need,
            lambda: actor_of(need, number, payload=self._payload),
            thread=self._thread,
            on=Events(self._scaling.changed, self._closed, self._used),
            timeout=self._timeout,
        )
        self._pools.append(pool)
        if len(self._pools) == len(self._needs):
            self._open = len(self._pools)
            self._scaling.begin(at_once=self._is_much)
            self._thread.start()
        return pool

    def wait(self) -> None:
        """Wait until each stage has a worker with a process, or none can have one."""
        self._scaling.all_placed.wait()

    def store_logs(self) -> None:
        """Have the workers store their logs: Ray may end them as soon as the last shard is committed."""
        ask_all(self._staffs, "store")

    @property
    def _staffs(self) -> list[Staff]:
        return [pool.staff for pool in self._pools]

    def _room(self) -> Room:
        return Room.of_cluster(workers=self._workers)

    def _look(self) -> None:
        for pool in self._pools:
            pool.look()
        self._scaling.look()

    def _failed(self, error: Exception) -> None:
        """Fail all calls with *error*: it is unknown which of them still have a worker."""
        _log.error("the stages cannot go on: %s", describe(error), exc_info=error)
        for pool in self._pools:
            pool.fail(error)

    def _used(self, usage: Usage) -> None:
        if usage and self._pulse.meter is not None:
            self._pulse.meter.count(usage)

    def _closed(self) -> None:
        """End all workers once the last pool is closed: they are asked all at once."""
        self._open -= 1
        if self._open == 0:
            self._thread.end(_LEAVE_SECONDS)
            ask_all(self._staffs, "end")
            for staff in self._staffs:
                staff.kill()
