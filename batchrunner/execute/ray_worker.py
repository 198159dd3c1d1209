"""The worker side of the `ray` engine: processes that Ray starts, each with one `ShardWorker`.

A worker never raises into Ray Data, which would end the run or drop a block without an error: every
failure is a receipt.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from batchrunner.checkpoint.marks import Witness
from batchrunner.errors import CapabilityImportError
from batchrunner.execute.payload import Payload, unpacked
from batchrunner.execute.ray_connection import is_lost
from batchrunner.execute.ray_heartbeats import Sender
from batchrunner.execute.ray_rate_limit import gate_of
from batchrunner.execute.stages_on_ray import StagesOnRay
from batchrunner.shard import Shard
from batchrunner.worker.heartbeat import WorkerPhase
from batchrunner.worker.process import Host, ShardWorker
from batchrunner.worker.pulse import Pulse, beating
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.stopping import Grace, StoredStop
from batchrunner.worker.worker_log import WorkerLog

_COST_POLL = 0.5
"""Seconds between two checks for a stop of a run that `max_cost` may end."""


class GroupActor:
    """Processes groups of shards with a capability that is built once."""

    def __init__(self, payload: Payload) -> None:
        pulse = Pulse()
        # For as long as this process lives: an idle actor still holds its GPU.
        self._beating = _beating(pulse, payload)
        self._beating.__enter__()
        self._worker = _RayWorker(payload, pulse)

    def __call__(self, batch: Any) -> Iterator[Any]:
        yield from self._worker.receipts(batch)


def process_group(batch: Any, *, payload: Payload) -> Iterator[Any]:
    """Process one group of shards in a task; the process keeps the capability for its next task."""
    known = _workers.get(payload.key)
    pulse = known.pulse if known else Pulse()
    with _beating(pulse, payload):
        if known is None:
            # Ray reuses processes for later sessions: the earlier capability must free its memory.
            for earlier in _workers.values():
                earlier.end()
            _workers.clear()
            _workers[payload.key] = _RayWorker(payload, pulse)
        yield from _workers[payload.key].receipts(batch)


_workers: dict[str, _RayWorker] = {}


def _beating(pulse: Pulse, payload: Payload) -> AbstractContextManager[None]:
    return beating(pulse, Sender(payload.key), seconds=payload.beat_seconds)


class _RayWorker:
    """Holds a `ShardWorker`, or the failure to build it, which each receipt then reports."""

    def __init__(self, payload: Payload, pulse: Pulse) -> None:
        self.pulse = pulse
        self._failure: Failure | None = None
        self._stages: StagesOnRay | None = None
        self._log = WorkerLog().begin()  # before the user's modules are imported, which may print
        try:
            work = unpacked(payload)
            self._log.store_in(work.checkpoint().storage, session=work.session)
            if work.spec.stages:
                self._stages = StagesOnRay(work, payload, pulse)
            host = Host(_witness(work.session), pulse, pools=self._stages, gate=gate_of(work))
            self._worker = ShardWorker(work, pickled=lambda: payload.work, host=host)
            poll = Grace(work.spec.execution.grace_period).poll
            if work.spec.execution.max_cost is not None:  # each second until the stop is paid for
                poll = min(poll, _COST_POLL)
            self._stop = StoredStop(work.checkpoint().storage, work.session, poll=poll)
        except CapabilityImportError as error:
            self._failure = Failure(Cause.IMPORT, str(error))
        pulse.phase = WorkerPhase.IDLE

    def receipts(self, batch: Any) -> Iterator[Any]:
        """Yield a table with None when the work begins, then a table for each list of receipts."""
        import pyarrow as pa

        if self._stages is None:
            self.pulse.phase = WorkerPhase.RUNNING
        else:
            # It reads meanwhile; the driver warns if workers of stages do not start.
            self.pulse.phase = WorkerPhase.LOADING
            threading.Thread(target=self._run_once_placed, daemon=True).start()
        yield pa.table({"receipts": [pickle.dumps([None])]})
        group = pickle.loads(batch.column("group")[0].as_py())  # noqa: S301 - written by our driver
        for receipts in self._process(group):
            yield pa.table({"receipts": [pickle.dumps(receipts)]})
        self.pulse.phase = WorkerPhase.IDLE
        if self._stages is not None:
            self._stages.store_logs()
        self._log.store()  # Ray may end this process as soon as the last task is over

    def _run_once_placed(self) -> None:
        if self._stages is not None:
            self._stages.wait()
        if self.pulse.phase is WorkerPhase.LOADING:
            self.pulse.phase = WorkerPhase.RUNNING

    def end(self) -> None:
        """End the log, and store the rest of it; make no more calls."""
        if self._failure is None:
            self._worker.close()
        self._log.end()

    def _process(self, group: Sequence[Shard]) -> Iterator[list[Receipt]]:
        if self._failure is not None:
            return iter([[Receipt(shard.id, failure=self._failure) for shard in group]])
        return self._worker.process(group, stop=self._stop)


def _witness(session: str) -> Witness:
    import ray

    return Witness(session, ray.get_runtime_context().get_node_id(), is_lost)
