"""A session at work: shards handed out, receipts taken, a stop obeyed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence

from batchrunner.checkpoint import Quarantine, Sentinel
from batchrunner.checkpoint.marks import remove_marks
from batchrunner.driver.clearing import ClearedRuns
from batchrunner.driver.progress import Pace, Progress
from batchrunner.driver.rounds import ROUNDS, Tally, waves
from batchrunner.driver.session import Session, StopReason
from batchrunner.errors import RayUnavailableError, StorageError
from batchrunner.shard import Shard, Slicing
from batchrunner.worker.committer import Committer
from batchrunner.worker.pipeline import LEAVE_SECONDS, read_ticking
from batchrunner.worker.receipt import GIVEN_UP, Cause, Receipt
from batchrunner.worker.stopping import stop_key
from batchrunner.worker.work import Work

Engine = Callable[[Work, Sequence[Shard]], Iterator[Receipt | None]]
"""Processes shards and yields how each ended, in any order; at least once."""

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
_DROP_SECONDS = 0.5
_FOLD_EVERY = 5000
_FAILURES_NOTED = 100


class Driving:
    """Hands out the pending shards of a run.

    Attributes:
        tally: What came of them so far.
    """

    def __init__(
        self,
        work: Work,
        session: Session,
        pace: Pace,
        progress: Progress,
        *,
        cleared: ClearedRuns,
    ) -> None:
        self.tally = Tally()
        self._cleared = cleared
        self._work, self._session = work, session
        self._pace, self._progress = pace, progress
        self._checkpoint = work.checkpoint()
        self._shards: dict[int, Shard] = {}
        self._unfolded: dict[int, Sentinel] = {}
        self._has_begun = False
        self._stop_is_stored = False
        self._is_cut_short = True

    def go(self, shards: Sequence[Shard], engine: Engine) -> None:
        """Hand *shards* out until each is committed or failed for good, or a stop comes.

        Raises:
            CapabilityImportError: No shard can succeed.
            RayUnavailableError: There is nothing to run on.
            StorageError: Storage fails everything.
        """
        self._shards = {shard.id: shard for shard in shards}
        try:
            for wave in waves(shards):
                if self._session.stop.is_from_outside:
                    break
                self._rounds(engine, [shard for shard in wave if self._may_run(shard)])
                if self._session.stop.reason:
                    break
                self._commit_put_off(wave)
            self._quarantine()
            self._is_cut_short = False
        finally:
            self._leave()

    def _may_run(self, shard: Shard) -> bool:
        """Tell whether the rows that *shard* is to try again are set aside by now."""
        waits = shard.slicing is Slicing.DEAD_LETTERS and shard.start in self._shards
        return not waits or shard.start in self.tally.committed

    def _rounds(self, engine: Engine, shards: Sequence[Shard]) -> None:
        todo = list(shards)
        for _ in range(ROUNDS if todo else 0):
            self._round(engine, todo)
            self._look_up(self.tally.to_retry(todo))
            if not self._session.stop.reason:
                self._make_way(todo)
            todo = self.tally.to_retry(todo)
            if not todo or self._session.stop.reason:
                break

    def _round(self, engine: Engine, shards: Sequence[Shard]) -> None:
        items = self._noticed(engine(self._work, shards))
        with read_ticking(items, seconds=_TICK_SECONDS, patience=self._patience) as receipts:
            for receipt in self._survived(receipts):
                if receipt is not None:
                    self._take(receipt)
                self._progress.show(self._pace.standing(failed=len(self.tally.failures)))
                self._pass_stop_on()
                if not self._is_worth_waiting():
                    return

    def _noticed(self, items: Iterator[Receipt | None]) -> Iterator[Receipt | None]:
        for item in items:
            self._has_begun = True
            yield item

    def _survived(self, receipts: Iterator[Receipt | None]) -> Iterator[Receipt | None]:
        """Yield *receipts* until Ray, which a signal to the process group hits as well, is gone."""
        try:
            yield from receipts
        except RayUnavailableError as error:
            if not self._session.stop.is_from_outside:
                raise
            _log.info("%s", error)

    def _is_worth_waiting(self) -> bool:
        """Tell whether to wait for what is in flight; before anything has begun, nothing is."""
        stop = self._session.stop
        return stop.is_patient and (self._has_begun or not stop.is_from_outside)

    def _patience(self) -> float:
        """Return how long to wait for the engine to end: a call that hangs does not let it."""
        return _DROP_SECONDS if self._session.stop.reason else LEAVE_SECONDS

    def _make_way(self, shards: Iterable[Shard]) -> None:
        """Remove the parts that a worker of an ended run published under the names of *shards*.

        None of these shards is at a worker of this session any more.
        """
        for shard in self.tally.foreign(shards) if self._cleared else ():
            part = self._work.facts.part(shard.id)
            if self._cleared.remove(part, check=self._session.check):
                self._session.log_event("late_part_removed", shard=shard.id, part=part)
                del self.tally.failures[shard.id]

    def _look_up(self, shards: Iterable[Shard]) -> None:
        """Take the sentinels of those *shards* that are committed although no receipt says so.

        Ray numbers what a task yields. When it runs a dead task again, it drops as many items as it
        had got from the first one, whatever is in them. And storage may fail after it has written.
        """
        stem = self._work.facts.stem
        unsure = {stem(shard.id): shard.id for shard in shards}
        try:
            committed = self._checkpoint.find(unsure, run_uid=self._work.run_uid)
        except StorageError as error:  # they are handed out again, now or by the next session
            _log.warning("%s", error)
            return
        for found, sentinel in committed.items():
            self._take(Receipt(unsure[found], sentinel=sentinel))

    def _take(self, receipt: Receipt) -> None:
        if not self.tally.take(receipt):
            return
        if receipt.failure is not None:
            if len(self.tally.failures) <= _FAILURES_NOTED:
                self._session.log_event(
                    "shard_failed", shard=receipt.shard, why=receipt.failure.reason
                )
            if self.tally.is_hopeless:
                raise StorageError(receipt.failure.reason)
            if receipt.failure.cause is Cause.BUDGET:
                self._session.stop.request(StopReason.ROW_ERRORS)
        elif receipt.sentinel is not None:
            self._pace.count(receipt.sentinel, self._shards[receipt.shard])
            self._unfolded[receipt.shard] = receipt.sentinel
            if len(self._unfolded) >= _FOLD_EVERY:
                self._fold()
            if self._pace.loses_too_much(self._work.spec.errors):
                self._session.stop.request(StopReason.ROW_ERRORS)

    def _pass_stop_on(self) -> None:
        """Tell the workers, wherever they are, once there is a reason to stop."""
        if self._session.stop.reason and not self._stop_is_stored:
            self._stop_is_stored = True
            self._checkpoint.storage.put(stop_key(self._session.id), b"")

    def _leave(self) -> None:
        try:
            self._fold()
            if self._stop_is_stored:
                self._checkpoint.storage.delete([stop_key(self._session.id)])
            is_worker = self._work.spec.execution.engine == "local"
            if self._stop_is_stored or (self._is_cut_short and is_worker):  # it is alive
                remove_marks(self._checkpoint.records, session=self._session.id)
        except StorageError as error:  # neither is needed, and what went wrong before must be heard
            _log.warning("%s", error)

    def _quarantine(self) -> None:
        """Set apart what has had its attempts; `retry` brings it back."""
        stem = self._work.facts.stem
        failures = {i: f for i, f in self.tally.failures.items() if f.cause in GIVEN_UP}
        if failures:
            self._session.check()  # what `retry` released since is the next driver's to judge
        self._checkpoint.quarantine(
            {
                stem(i): Quarantine(
                    self._work.run_uid, i, failure.reason, failure.attempts, self._session.id
                )
                for i, failure in failures.items()
            }
        )

    def _fold(self) -> None:
        self._checkpoint.fold(self._unfolded, name=uuid.uuid4().hex)
        self._unfolded = {}

    def _commit_put_off(self, shards: Sequence[Shard]) -> None:
        """Commit the shards that had no rows to write, now that others have fixed the schema."""
        waiting = [shard for shard in shards if shard.id in self.tally.put_off]
        if not waiting:
            return
        committer = Committer(self._work)
        for shard in waiting:
            for receipt in committer.commit_empty(shard, self.tally.put_off.pop(shard.id)):
                self._take(receipt)
