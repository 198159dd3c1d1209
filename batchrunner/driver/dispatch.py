"""The main loop of a session: hands out shards, takes their receipts, and obeys a stop."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from batchrunner.checkpoint import Quarantine, Sentinel
from batchrunner.checkpoint.answers import ANSWERS
from batchrunner.checkpoint.marks import remove_marks
from batchrunner.driver.engine import Engine
from batchrunner.driver.growing import GrowingPlan
from batchrunner.driver.progress import Display
from batchrunner.driver.report_text import no_cost
from batchrunner.driver.session import Session, StopReason
from batchrunner.driver.shard_outcomes import ShardOutcomes
from batchrunner.driver.tracker import Tracker
from batchrunner.driver.waves import waves
from batchrunner.errors import RayUnavailableError, StorageError
from batchrunner.shard import Shard
from batchrunner.worker.committer import Committer
from batchrunner.worker.pipeline import LEAVE_SECONDS, read_ticking
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.stopping import ENDS_SHARDS, stop_key
from batchrunner.worker.work import Work

_log = logging.getLogger(__name__)

_ROUNDS = 3
"""How often a session hands out a shard that storage fails; storage itself retries each time."""
_TICK_SECONDS = 0.25
_SHOW_SECONDS = 0.1
_SHARE_WITHOUT_SHOW = 30
"""How many times as long as the display took the loop goes on before the display is shown again."""
_DROP_SECONDS = 0.5
_INDEX_EVERY = 5000
"""How many sentinels go into one index; the next session reads one file in place of them."""
_FAILURES_LOGGED = 100
_ENOUGH_TO_KNOW_COST = 100
"""After so many answers without a cost, no later one is expected to have one."""


class Dispatcher:
    """Hands out the pending shards of a run.

    Attributes:
        outcomes: How the shards ended so far.
    """

    def __init__(
        self,
        work: Work,
        session: Session,
        tracker: Tracker,
        display: Display,
        *,
        plan: GrowingPlan,
    ) -> None:
        self.outcomes = ShardOutcomes()
        self._plan, self._cleared = plan, plan.run.cleared  # listed once
        self._work, self._session = work, session
        self._tracker, self._display = tracker, display
        self._next_show = 0.0
        self._checkpoint = work.checkpoint()
        self._shards: dict[int, Shard] = {}
        self._not_indexed: dict[int, Sentinel] = {}
        self._has_begun = False
        self._stop_is_stored = False
        self._is_cut_short = True

    def go(self, shards: Sequence[Shard], engine: Engine) -> None:
        """Hand out *shards* until each is committed or failed for good, or a stop is requested.

        Raises:
            CapabilityImportError: The capability cannot be built, so no shard can succeed.
            RayUnavailableError: Ray, on which the workers run, cannot be reached.
            StorageError: Storage fails one shard after another.
        """
        self._shards = {shard.id: shard for shard in shards}
        try:
            self._look_at_cost()
            for wave in waves(shards):
                stop = self._session.stop
                if stop.is_from_outside or stop.ends_shards:
                    break
                self._run_growing(engine, [shard for shard in wave if self._may_run(shard)])
                if self._session.stop.reason:
                    break
            self._quarantine()
            self._is_cut_short = False
        finally:
            self._leave()

    def _may_run(self, shard: Shard) -> bool:
        """Return whether *shard* can run: one of dead letters needs its origin to be committed."""
        waits = shard.retries in self._shards
        return not waits or shard.retries in self.outcomes.committed

    def _run_growing(self, engine: Engine, shards: Sequence[Shard]) -> None:
        """Run *shards*, then those by which the plan has grown, until it grows no more."""
        while shards:
            self._run_wave(engine, shards)
            shards = self._added()

    def _added(self) -> Sequence[Shard]:
        # Also after a stop: the next session need not find out again which files cannot be read.
        added = self._grow()
        if self._session.stop.reason:
            return ()
        if not added:  # only now: until then, a shard that is added may fix the schema
            self._commit_deferred()
            added = self._grow()
        return added

    def _grow(self) -> Sequence[Shard]:
        addition = self._plan.grow(self.outcomes.failures, self.outcomes.committed)
        if addition is None:
            return ()
        self.outcomes.retire(addition.retired)
        self._shards |= {shard.id: shard for shard in addition.shards}
        self._tracker.grow(self._plan.survey.plan.active)
        if self._work.first is not None:  # it may be one of the retired ones
            self._work = replace(self._work, first=addition.shards[0].id)
        return addition.shards

    def _run_wave(self, engine: Engine, shards: Sequence[Shard]) -> None:
        todo = list(shards)
        for _ in range(_ROUNDS if todo else 0):
            self._run_round(engine, todo)
            self._look_up(self.outcomes.to_retry(todo))
            if not self._session.stop.reason:
                self._remove_late_parts(todo)
            todo = self.outcomes.to_retry(todo)
            if not todo or self._session.stop.reason:
                break

    def _run_round(self, engine: Engine, shards: Sequence[Shard]) -> None:
        self._tracker.begin(shards, failed=len(self.outcomes.failures))
        items = self._noting_begin(engine(self._work, shards, hear=self._tracker.hear))
        with read_ticking(items, seconds=_TICK_SECONDS, patience=self._patience) as receipts:
            for receipt in self._until_ray_is_gone(receipts):
                if receipt is not None:
                    self._take(receipt)
                self._show()
                self._note_deaths()
                self._look_at_cost()
                self._pass_stop_on()
                if not self._is_worth_waiting():
                    return

    def _noting_begin(self, items: Iterator[Receipt | None]) -> Iterator[Receipt | None]:
        for item in items:
            self._has_begun = True
            self._tracker.is_ready()
            yield item

    def _show(self) -> None:
        """Show the progress, so seldom that it takes a small share of this thread's time."""
        began = time.monotonic()
        if began < self._next_show:
            return
        self._tracker.count_failed(len(self.outcomes.failures))
        self._display.show(self._tracker.progress())
        now = time.monotonic()
        self._next_show = now + max(_SHOW_SECONDS, _SHARE_WITHOUT_SHOW * (now - began))

    def _note_deaths(self) -> None:
        for death in self._tracker.deaths():
            self._session.log_event("worker_died", worker=death.worker, shards=list(death.shards))
            _log.warning("%s", death)

    def _until_ray_is_gone(self, receipts: Iterator[Receipt | None]) -> Iterator[Receipt | None]:
        """Yield *receipts*; end without an error if a signal to the process group ended Ray."""
        try:
            yield from receipts
        except RayUnavailableError as error:
            if not self._session.stop.is_from_outside:
                raise
            _log.info("%s", error)

    def _is_worth_waiting(self) -> bool:
        """Return whether to wait for shards in flight; there are none before a worker has begun."""
        stop = self._session.stop
        return stop.is_patient and (self._has_begun or not stop.is_from_outside)

    def _patience(self) -> float:
        """Return how many seconds to wait for the engine to end: a call that hangs blocks it."""
        return _DROP_SECONDS if self._session.stop.reason else LEAVE_SECONDS

    def _remove_late_parts(self, shards: Iterable[Shard]) -> None:
        """Remove the parts that a worker of an ended run published under the names of *shards*.

        Called between rounds: no worker of this session holds one of these shards, so none of them
        can publish a part at the same time.
        """
        for shard in self.outcomes.foreign(shards) if self._cleared else ():
            part = self._work.facts.part(shard.id)
            if self._cleared.remove(part, check=self._session.check):
                self._session.log_event("late_part_removed", shard=shard.id, part=part)
                del self.outcomes.failures[shard.id]

    def _look_up(self, shards: Iterable[Shard]) -> None:
        """Read the sentinels of those *shards* that are committed although no receipt arrived.

        Ray numbers what a task yields. When it repeats a task that died, it drops as many items as
        the first try had yielded, even if they differ. And storage may fail after it has written.
        """
        stem = self._work.facts.stem
        unsure = {stem(shard.id): shard.id for shard in shards}
        try:
            committed = self._checkpoint.find(unsure, run_uid=self._work.run_uid)
        except StorageError as error:  # this session or the next one hands the shards out again
            _log.warning("%s", error)
            return
        for name, sentinel in committed.items():
            self._take(Receipt(unsure[name], sentinel=sentinel))

    def _take(self, receipt: Receipt) -> None:
        self._tracker.stages.take(receipt.clocks)
        if not self.outcomes.take(receipt):
            return
        if receipt.failure is not None:
            self._take_failure(receipt.shard, receipt.failure)
        elif receipt.sentinel is not None:
            self._take_sentinel(receipt.shard, receipt.sentinel)

    def _take_failure(self, shard: int, failure: Failure) -> None:
        self._tracker.fail(shard)
        if len(self.outcomes.failures) <= _FAILURES_LOGGED:
            self._session.log_event("shard_failed", shard=shard, why=failure.reason)
        if self.outcomes.is_hopeless:
            raise StorageError(failure.reason)
        if failure.cause is Cause.BUDGET:
            self._session.stop.request(StopReason.ROW_ERRORS)

    def _take_sentinel(self, shard: int, sentinel: Sentinel) -> None:
        self._shards[shard] = self._shards[shard].until(sentinel.early_end)
        self._tracker.commit(shard, sentinel)
        self._not_indexed[shard] = sentinel
        for call in self._session.on_committed:
            call(self._shards[shard], sentinel)
        if len(self._not_indexed) >= _INDEX_EVERY:
            self._write_index()
        if self._tracker.exceeds_budget:
            self._session.stop.request(StopReason.ROW_ERRORS)

    def _look_at_cost(self) -> None:
        limit = self._work.spec.execution.max_cost
        if limit is None or self._session.stop.reason:
            return
        if self._tracker.cost >= limit:
            self._session.stop.request(StopReason.MAX_COST)
        elif not self._tracker.cost and self._answered() >= _ENOUGH_TO_KNOW_COST:
            # A limit that cannot work is not run past.
            _log.warning("%s", no_cost(self._tracker.progress().spent))
            self._session.stop.request(StopReason.NO_COST)

    def _answered(self) -> int:
        return self._tracker.answered(in_flight=self._has_no_journal)

    @cached_property
    def _has_no_journal(self) -> bool:
        """Whether no earlier session has journaled answers: these are paid for, and come before any call is made."""
        entries = self._checkpoint.records.list(ANSWERS)
        return not self._work.spec.execution.journal_answers or not any(True for _ in entries)

    def _pass_stop_on(self) -> None:
        """Store a requested stop in the checkpoint, where workers on any machine read it."""
        if self._session.stop.reason and not self._stop_is_stored:
            self._stop_is_stored = True
            data = ENDS_SHARDS if self._session.stop.ends_shards else b""
            self._checkpoint.storage.put(stop_key(self._session.id), data)

    def _leave(self) -> None:
        try:
            self._write_index()
            if self._stop_is_stored:
                self._checkpoint.storage.delete([stop_key(self._session.id)])
            is_worker = self._work.spec.execution.engine == "local"
            # After a clean stop, or an error that a worker in this process survived, no shard has
            # killed its worker: no mark may cast suspicion. On Ray, after an error, a worker may
            # have died.
            if self._stop_is_stored or (self._is_cut_short and is_worker):
                remove_marks(self._checkpoint.records, session=self._session.id)
        except StorageError as error:  # both steps are optional, and must not hide an earlier error
            _log.warning("%s", error)

    def _quarantine(self) -> None:
        """Quarantine the shards whose attempts are used up; `retry` releases them."""
        facts, failures = self._work.facts, self.outcomes.to_quarantine
        if failures:
            self._session.check()  # if a `retry` took over, its driver decides about these shards
        self._checkpoint.quarantine(
            {
                facts.stem(i): Quarantine(
                    self._work.run_uid, i, failure.reason, failure.attempts, self._session.id
                )
                for i, failure in failures.items()
            }
        )

    def _write_index(self) -> None:
        self._checkpoint.fold(self._not_indexed, name=uuid.uuid4().hex)
        self._not_indexed = {}

    def _commit_deferred(self) -> None:
        """Commit the shards whose output has no column, now that other parts fixed the schema."""
        if not self.outcomes.deferred:
            return
        committer = Committer(self._work)
        for shard in sorted(self.outcomes.deferred):
            deferred = self.outcomes.deferred.pop(shard)
            for receipt in committer.commit_deferred(self._shards[shard], deferred):
                self._take(receipt)
