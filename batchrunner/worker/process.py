"""From shards to committed parts: read, map, write, commit. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from batchrunner.checkpoint.dead_letters import keep_dead_letters
from batchrunner.checkpoint.marks import (
    MOST_DEATHS,
    Mark,
    Suspicion,
    Witness,
    marked,
    marks_left,
    record_deaths,
    suspicion,
)
from batchrunner.shard import Shard
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.budget import Budget
from batchrunner.worker.calling import Caller
from batchrunner.worker.capability_loading import direct_caller
from batchrunner.worker.committer import GROUP_PARTS, Committer
from batchrunner.worker.isolation import IsolatedCaller
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.shard_group import BATCHES_AHEAD, BATCHES_BEHIND, ShardGroup
from batchrunner.worker.stopping import StopSignal
from batchrunner.worker.work import Work


class ShardWorker:
    """Processes shards with one capability, which is built once."""

    def __init__(
        self, work: Work, *, pickled: Callable[[], bytes], witness: Witness | None = None
    ) -> None:
        """Load and build the capability; *pickled* gives *work* as bytes for another process.

        The *witness* says which deaths count; by default, that of a worker in the driver's process.

        Raises:
            CapabilityImportError: It cannot be imported or built.
        """
        work.prepare()
        self._work, self._pickled = work, pickled
        self._witness = witness or Witness(work.session)
        self._checkpoint = work.checkpoint()
        self._records = self._checkpoint.records
        self._schema = work.schema()
        self._types = RowTypes(self._schema if work.facts.part_format.keeps_schema else None)
        self._budget = Budget(work.spec.errors, whole=work.weight)
        self._isolated: IsolatedCaller | None = None
        # A call that hangs can be ended only together with its process.
        always_isolated = work.spec.errors.batch_timeout is not None
        self._usual = (
            self._isolated_caller()
            if always_isolated
            else direct_caller(work, self._schema, input_types=self._input_types)
        )

    def _input_types(self, batch: Batch) -> InputTypes:
        return replace(batch.input_types, schemas=self._types.hints(batch.input_types.schemas))

    def _isolated_caller(self) -> IsolatedCaller:
        if self._isolated is None:
            spec = self._work.spec
            self._isolated = IsolatedCaller(
                self._pickled(),
                input_types=self._input_types,
                by_rows=not self._work.takes_tables,
                timeout=spec.errors.batch_timeout,
                memory=spec.execution.memory,
            )
        return self._isolated

    def process(self, shards: Sequence[Shard], *, stop: StopSignal) -> Iterator[list[Receipt]]:
        """Process *shards* and yield their receipts, those that were committed together in one list.

        A failure costs its shard; a row that fails, only the row. Shards over which a worker has died
        come last, one at a time, and then in isolation. After a stop, or once the budget allows no
        more, shards that were not begun have no receipt.
        """
        if self._budget.is_hopeless:
            return
        self._schema.waits = self._work.first not in {None, *(shard.id for shard in shards)}
        marks = marks_left(self._records)
        committed = self._committed(shards, marks)
        if committed:
            yield committed
        done = {receipt.shard for receipt in committed}
        todo = [shard for shard in shards if shard.id not in done]
        suspected = self._suspicion(marks, frozenset(shard.id for shard in todo))
        suspects = suspected.suspects
        # Suspects last: one that kills this worker, too, must not take the others with it.
        yield from self._try([s for s in todo if s.id not in suspects], self._usual, stop)
        for shard in todo:
            if shard.id in suspects and not (stop.waited() or self._budget.is_hopeless):
                yield from self._try_suspect(shard, suspected, stop)

    def _committed(self, shards: Sequence[Shard], marks: Sequence[Mark]) -> list[Receipt]:
        """Return receipts of those *shards* that an earlier attempt began and committed.

        Only a worker that died before its group ended leaves a mark: shards without one cost no
        request. One that another worker has committed alive since the survey is mapped again, and
        its part is adopted.
        """
        begun = {shard for mark in marks for shard in mark.shards}
        sentinels = Committer(self._work).committed([s for s in shards if s.id in begun])
        return [Receipt(shard, sentinel=sentinel) for shard, sentinel in sentinels.items()]

    def _suspicion(self, marks: Sequence[Mark], todo: frozenset[int]) -> Suspicion:
        if self._witness.node and any(todo.intersection(mark.shards) for mark in marks):
            record_deaths(self._records, todo, session=self._work.session)
        # A worker that died can have had so many shards in hand, were each of them one batch: in
        # finished parts, read ahead, in calls, waiting to be written, and the one being read.
        in_flight = GROUP_PARTS + BATCHES_AHEAD + BATCHES_BEHIND + self._usual.ahead + 1
        return suspicion(marks, todo, in_flight=in_flight, witness=self._witness)

    def _try_suspect(
        self, shard: Shard, suspected: Suspicion, stop: StopSignal
    ) -> Iterator[list[Receipt]]:
        """Process one suspect: in isolation if workers died over it alone, not at all after many deaths."""
        deaths = suspected.deaths[shard.id]
        if deaths >= MOST_DEATHS:
            reason = (
                f"{shard}: {deaths} workers died over it, with its capability in another process"
            )
            yield [Receipt(shard.id, failure=Failure(Cause.CAPABILITY, reason))]
            return
        is_guilty = deaths or suspected.outside[shard.id] >= self._witness.patience
        caller = self._isolated_caller() if is_guilty else self._usual
        yield from self._try([shard], caller, stop)

    def _try(
        self, shards: Sequence[Shard], caller: Caller | IsolatedCaller, stop: StopSignal
    ) -> Iterator[list[Receipt]]:
        """Process *shards*, and retry those that failed by the user's side, as often as allowed.

        A shard whose types were overtaken by another worker's is retried once in any case.
        """
        remaining, attempt = list(shards), 0
        while remaining and not (attempt and stop.waited()):
            attempt += 1
            if attempt > 1:
                self._refresh_schema(caller)
            failed: dict[int, Receipt] = {}
            for receipts in self._attempt(remaining, caller, stop, is_first=attempt == 1):
                tries = min(attempt, self._work.spec.errors.retry.max_attempts)
                failed.update((r.shard, r.after(tries)) for r in receipts if r.uses_up_attempt)
                if final := [r for r in receipts if not r.uses_up_attempt]:
                    yield self._finalized(final)
            to_retry = {id_ for id_, r in failed.items() if self._may_retry(r, attempt)}
            if final := [r for id_, r in failed.items() if id_ not in to_retry]:
                yield self._finalized(final)
            remaining = [s for s in remaining if s.id in to_retry]

    def _may_retry(self, receipt: Receipt, attempt: int) -> bool:
        """Return whether a shard that has failed in so many attempts has another one."""
        failure = receipt.failure
        # A failed row had tries of its own. Where no call has ever succeeded, others would fail alike.
        if failure is None or (failure.cause is Cause.ROW and self._budget.has_only_failed):
            return False
        return attempt < self._work.spec.errors.retry.max_attempts + failure.overtaken

    def _finalized(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Return *receipts* without secrets; store the dead letters of shards that failed."""
        for receipt in receipts:
            dead_letters = self._budget.end(receipt.shard)
            # What storage failed is handed out again, and then has dead letters of its own.
            if dead_letters and receipt.failure and receipt.failure.cause is not Cause.STORAGE:
                stem = self._work.facts.stem(receipt.shard)
                keep_dead_letters(self._checkpoint, stem, dead_letters, epoch=self._work.epoch)
        return [receipt.scrubbed() for receipt in receipts]

    def _refresh_schema(self, caller: Caller | IsolatedCaller) -> None:
        """Have the next attempt read the schema that other workers may have agreed on meanwhile."""
        self._schema.refresh()
        if isinstance(caller, IsolatedCaller):
            caller.close()  # a new process reads it when it starts

    def _attempt(
        self,
        shards: Sequence[Shard],
        caller: Caller | IsolatedCaller,
        stop: StopSignal,
        *,
        is_first: bool,
    ) -> Iterator[list[Receipt]]:
        if not shards:
            return
        ids = [shard.id for shard in shards]
        session, node = self._work.session, self._witness.node
        # Marked before anything of theirs is read, so that a death at any instant leaves the mark.
        with marked(self._records, ids, session=session, node=node):
            self._types.begin(is_final=not is_first)
            self._budget.begin(ids)
            group = ShardGroup(
                self._work, caller, self._budget, schema=self._schema, types=self._types
            )
            yield from group.process(shards, stop=stop)

    def close(self) -> None:
        """End the processes and threads that the calls of the capability needed."""
        self._usual.close()
        if self._isolated is not None:
            self._isolated.close()
