"""Keeps the progress of a session up to date: from receipts, and between them from heartbeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.totals import Usage, added, more_than
from batchrunner.driver.bottleneck import advice
from batchrunner.driver.in_flight import Death, InFlight, Seen
from batchrunner.driver.progress import COMMITTED, FAILED, IN_FLIGHT, PENDING, Phase, Progress
from batchrunner.driver.run_setting import RunSetting
from batchrunner.driver.session import Session
from batchrunner.driver.stage_sums import StageSums
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import ErrorsSpec
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase
from batchrunner.worker.usage import COST, tokens_in


class Tracker:
    """Keeps the progress of a session. `progress` and `hear` are safe in any thread.

    Attributes:
        stages: What the workers spend their time on.
        setting: What they were given, for the advice that follows from it.
        spent_before: What the calls of earlier sessions have used.
    """

    def __init__(self, begun: Progress, shards: Sequence[Shard], policy: ErrorsSpec) -> None:
        """Go on from *begun*, the progress of a run with *shards* before any of them is handed out."""
        self._progress, self._policy = begun, policy
        self._lock = threading.Lock()
        self._take(shards, begun.states)
        self._in_flight = InFlight()
        self.stages, self.setting = StageSums(), RunSetting()
        self.spent_before: Usage = {}
        self._is_connected = False
        self._took, self._weight_taken = 0.0, 0
        self._rows_committed = 0

    def _take(self, shards: Sequence[Shard], states: bytes) -> None:
        self._shards = {shard.id: shard for shard in shards}
        self._places = {shard.id: place for place, shard in enumerate(shards)}
        self._states = bytearray(states)

    def grow(self, shards: Sequence[Shard]) -> None:
        """Go on with *shards*, those of the plan that has grown; those that it has lost have ended."""
        gone = self._shards.keys() - {shard.id for shard in shards}
        states = bytes(
            self._states[self._places[shard.id]] if shard.id in self._shards else PENDING
            for shard in shards
        )
        not_retried = sum(
            self._shards[i].rows or 0
            for i in gone
            if self._shards[i].retries is not None and self._states[self._places[i]] == PENDING
        )
        for shard in gone:
            self._in_flight.end(shard)
        with (
            self._lock
        ):  # the lease's thread must not see the shards of one plan and the places of another
            self._take(shards, states)
            self._progress = self._progress.grown(shards, not_retried=not_retried)

    def hear(self, heartbeat: Heartbeat) -> None:
        """Take a heartbeat. The engine sends one without a worker once it waits for its workers."""
        self._is_connected = True  # and never False again: another thread reads it
        if heartbeat.cpus is not None:
            self.setting = replace(self.setting, cpus=heartbeat.cpus, gpus=heartbeat.gpus)
        self.stages.take(heartbeat.clocks)
        if heartbeat.phase is WorkerPhase.DIED:
            self.stages.bury(heartbeat.worker)
            self._in_flight.bury(heartbeat.worker)
        elif heartbeat.worker:
            self._in_flight.hear(heartbeat)

    def deaths(self) -> list[Death]:
        """Return the workers that died since the last call."""
        return self._in_flight.deaths()

    def is_ready(self) -> None:
        """Note that a worker has loaded the capability. Idempotent."""
        if self._progress.loaded is None:
            self._progress = replace(self._progress, loaded=time.monotonic())

    def commit(self, shard: int, sentinel: Sentinel) -> None:
        self._end(shard, COMMITTED)
        # If it ended early, the rest counts as pending, also until the plan has shards of it.
        self._shards[shard] = self._shards[shard].until(sentinel.early_end)
        self._took += sentinel.seconds
        self._rows_committed += sentinel.rows_in - sentinel.rows_failed
        self._weight_taken += self._shards[shard].weight
        self._progress = self._progress.committing(self._shards[shard], sentinel)

    def fail(self, shard: int) -> None:
        self._end(shard, FAILED)

    def _end(self, shard: int, state: int) -> None:
        self._in_flight.end(shard)
        self._states[self._places[shard]] = state

    def begin(self, shards: Sequence[Shard], *, failed: int) -> None:
        """Begin to hand out *shards*, some of them perhaps again; *failed* others have failed."""
        for shard in shards:
            self._states[self._places[shard.id]] = PENDING
        self._in_flight.begin_again(shard.id for shard in shards)
        self.count_failed(failed)

    def count_failed(self, failed: int) -> None:
        self._progress = self._progress.failing(failed)

    @property
    def exceeds_budget(self) -> bool:
        """Whether more rows failed than the whole run may have, by the committed shards."""
        return self._progress.exceeds(self._policy)

    def finishing(self, *, failed: int) -> Progress:
        """Return how far the run is once no shard is handed out any more; *failed* shards failed."""
        self.count_failed(failed)
        states = bytes(self._states)
        allowed = self._progress.allowed(self._policy)
        return replace(
            self._with_stages(self._progress),
            phase=Phase.FINISHING,
            states=states,
            rows_allowed=allowed,
            is_extrapolated=self._is_extrapolated(),
        )

    def _with_stages(self, progress: Progress) -> Progress:
        stages, loaded = self.stages.stages(), progress.loaded
        setting = replace(
            self.setting,
            shards=len(self._shards),
            seconds=None if loaded is None else time.monotonic() - loaded,
            tokens=tokens_in(self.stages.usage()) or 0.0,
        )
        text = advice(stages, setting)
        return replace(progress, stages=stages, advice=text, spent=self._spent(progress))

    def _spent(self, progress: Progress) -> Usage:
        spent = added(self.spent_before, self.stages.usage())
        # A worker that died may not have reported its last calls; what is committed is known.
        return added(spent, more_than(progress.usage, spent))

    @property
    def cost(self) -> float:
        """What the calls of all sessions have cost so far."""
        return self._spent(self._progress).get(COST, 0.0)

    def answered(self, *, in_flight: bool) -> int:
        """Return how many rows have their answers of this session: committed ones, and those *in_flight* if asked for."""
        with self._lock:
            seen = self._in_flight.seen().rows.values() if in_flight else ()
        return self._rows_committed + sum(seen)

    @contextmanager
    def logged(self, session: Session) -> Iterator[None]:
        """Log what the workers spent their time on when the block ends, also by an error."""
        try:
            yield
        finally:
            progress = self._with_stages(self._progress)
            if progress.stages:
                stages = [clock.to_dict() for clock in progress.stages]
                session.log_event("stages_measured", stages=stages, advice=progress.advice)

    def progress(self) -> Progress:
        """Return how far the run is now."""
        with self._lock:
            return self._seen(self._progress, self._in_flight.seen())

    def _seen(self, progress: Progress, seen: Seen) -> Progress:
        return replace(
            self._with_stages(progress),
            phase=self._phase(),
            workers=seen.workers,
            workers_busy=seen.busy,
            rows_in_flight=sum(seen.rows.values()),
            weight_in_flight=self._weight(seen, progress),
            rows_allowed=progress.allowed(self._policy),
            is_extrapolated=self._is_extrapolated(),
            slowest=seen.slowest,
            usual_seconds=self._usual_seconds(seen.slowest),
            states=self._states_with(seen.rows),
        )

    def _is_extrapolated(self) -> bool:
        is_whole = self._progress.committed == self._progress.shards
        return isinstance(self._policy.max_row_errors, float) and not is_whole

    def _usual_seconds(self, slowest: tuple[int, float] | None) -> float | None:
        if slowest is None or not self._weight_taken:
            return None
        return self._took * self._shards[slowest[0]].weight / self._weight_taken

    def _phase(self) -> Phase:
        if self._progress.loaded is not None:
            return Phase.RUNNING
        return Phase.LOADING if self._is_connected else Phase.STARTING

    def _states_with(self, in_flight: Mapping[int, int]) -> bytes:
        states = self._states.copy()
        for shard in in_flight:
            states[self._places[shard]] = IN_FLIGHT
        return bytes(states)

    def _weight(self, seen: Seen, progress: Progress) -> float:
        by_row = progress.weight_done / max(progress.totals.rows_in, 1)
        return sum(
            _weight_of(self._shards[i], rows, seen.bytes[i], by_row=by_row)
            for i, rows in seen.rows.items()
        )


def _weight_of(shard: Shard, rows: int, nbytes: int, *, by_row: float) -> float:
    """Estimate how much of the weight of *shard* its first *rows* rows of *nbytes* are.

    *by_row* is the weight of a row of the committed shards; 0.0 if there is none.
    """
    if shard.rows:
        return shard.weight * min(rows / shard.rows, 1.0)
    # The rows of a compressed file take more bytes than it has.
    likely = float(nbytes) if shard.first.slicing is Slicing.BYTES else rows * by_row
    return min(likely, shard.weight)
