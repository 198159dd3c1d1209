"""Processes shards into committed parts: read, map, write, commit. The same on every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from batchrunner.checkpoint.dead_letters import keep_dead_letters
from batchrunner.checkpoint.location import apart_from
from batchrunner.checkpoint.marks import (
    MOST_DEATHS,
    NO_SUSPICION,
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
from batchrunner.worker.capability_loading import direct_caller, edges_of, isolated_row_caller
from batchrunner.worker.committer import GROUP_PARTS, Committer
from batchrunner.worker.cpu_time import process_cpu_time
from batchrunner.worker.file_names import FileNames
from batchrunner.worker.freed_blocks import keep_freed_blocks
from batchrunner.worker.gate import NO_GATE, Gate
from batchrunner.worker.isolated_process import IsolatedProcess
from batchrunner.worker.isolated_rows import IsolatedFunction
from batchrunner.worker.isolation import Bounds, IsolatedCaller, Sending
from batchrunner.worker.kept_answers import KeptAnswers
from batchrunner.worker.metering import Admission, MeteredGate
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.row_caller import RowCaller
from batchrunner.worker.schema import RowTypes, SinkSchema
from batchrunner.worker.shard_group import BATCHES_AHEAD, BATCHES_BEHIND, ShardGroup
from batchrunner.worker.stage_clock import Doing
from batchrunner.worker.stage_pool import Pools
from batchrunner.worker.staged_caller import StagedCaller
from batchrunner.worker.steps import MOST_SHARDS
from batchrunner.worker.stopping import Grace, StopSignal
from batchrunner.worker.waiting import Waits
from batchrunner.worker.work import Work

AnyCaller = Caller | RowCaller | StagedCaller | IsolatedCaller


@dataclass(frozen=True, slots=True)
class Host:
    """What the engine gives a worker.

    Attributes:
        witness: Decides which deaths of workers count against a shard; by default, as for a worker in
            the driver's process.
        pulse: Where to note what the worker is at; by default, where nothing reads it.
        pools: What makes the workers of the capability's stages; by default, threads of this process.
        gate: What admits its calls; by default, all of them.
    """

    witness: Witness | None = None
    pulse: Pulse | None = None
    pools: Pools | None = None
    gate: Gate = NO_GATE


_ALONE = Host()


class ShardWorker:
    """Processes shards with one capability, which it builds once."""

    def __init__(self, work: Work, *, pickled: Callable[[], bytes], host: Host = _ALONE) -> None:
        """Load and build the capability.

        Args:
            work: The work of the session.
            pickled: Returns *work* pickled, for an isolated process.
            host: What the engine gives it.

        Raises:
            CapabilityImportError: The capability cannot be imported or built.
        """
        work.prepare()
        keep_freed_blocks()
        self._work, self._pickled = work, pickled
        self._witness, self._pulse = host.witness or Witness(work.session), host.pulse or Pulse()
        self._pulse.calls.name = work.stage_name
        self._meter = self._pulse.meter = MeteredGate.of(work.spec, host.gate)
        self._checkpoint = work.checkpoint()
        self._records = self._checkpoint.records
        self._schema = work.schema()
        self._types = row_types(work, self._schema)
        self._budget = Budget(work.spec.errors, whole=work.weight, stage=work.failing_stage)
        self._isolated: IsolatedCaller | RowCaller | None = None
        self._function: IsolatedFunction | None = None
        self._kept: KeptAnswers | None = None
        # Then no row can end this process: what killed it says nothing about its shards.
        self._is_apart = host.pools is not None and host.pools.is_apart
        self._usual = self._usual_caller(host.pools)
        if self._isolated is None:  # else a process of their own computes
            self._pulse.calls.measure_cpu(process_cpu_time)
        self._pulse.calls.turn_to(Doing.NOTHING)

    def _usual_caller(self, pools: Pools | None) -> AnyCaller:
        work = self._work
        # A call that hangs can be ended only together with its process; stages have workers for that.
        has_limit = work.spec.errors.batch_timeout is not None and not work.spec.called.stages
        if work.isolated or has_limit:
            return self._isolated_caller()
        caller = direct_caller(
            work, self._schema, input_types=self._input_types, meter=self._meter, pools=pools
        )
        if isinstance(caller, StagedCaller):
            self._pulse.stages = caller.clocks
        if isinstance(caller, RowCaller):
            self._kept = caller.kept
        return caller

    def _input_types(self, batch: Batch) -> InputTypes:
        return self._types.expected(batch.input_types)

    def _isolated_caller(self) -> IsolatedCaller | RowCaller:
        if self._isolated is None:
            spec = self._work.spec
            bounds = Bounds(spec.errors.batch_timeout, spec.execution.memory)
            by_row = spec.called.mode == "row"
            self._isolated = (
                self._isolated_rows(bounds) if by_row else self._isolated_batches(bounds)
            )
        return self._isolated

    def _isolated_rows(self, bounds: Bounds) -> RowCaller:
        process = IsolatedProcess(self._pickled(), bounds.memory)
        self._function = IsolatedFunction(process, self._work.spec.errors)
        edges = edges_of(self._work, self._schema, self._input_types)
        # A shard that goes on in isolation has the answers that it got before.
        kept = self._kept or KeptAnswers(self._work.journal())
        return isolated_row_caller(
            self._work, self._function, edges=edges, meter=self._meter, kept=kept
        )

    def _isolated_batches(self, bounds: Bounds) -> IsolatedCaller:
        waits = Waits(Grace(self._work.spec.execution.grace_period).drain)
        return IsolatedCaller(
            self._pickled(),
            admission=Admission(self._meter, waits),
            sending=Sending(
                self._input_types,
                by_rows=not self._work.takes_tables,
                by_places=bool(self._work.spec.stages),
            ),
            bounds=bounds,
        )

    def process(self, shards: Sequence[Shard], *, stop: StopSignal) -> Iterator[list[Receipt]]:
        """Process *shards*; yield their receipts, in one list if they are committed together.

        A failure affects only its shard; a failed row, only the row. Shards that may have killed a
        worker come last, one at a time, in isolation if workers died while processing only that
        one. After a stop, or if all other rows would fail too, shards that have not begun get no
        receipt.
        """
        for receipts in self._processed(shards, stop):
            yield [*receipts[:-1], replace(receipts[-1], clocks=self._pulse.clocks())]

    def _processed(self, shards: Sequence[Shard], stop: StopSignal) -> Iterator[list[Receipt]]:
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
        # Suspects last: if one kills this worker as well, the other shards are already committed.
        yield from self._try([s for s in todo if s.id not in suspects], self._usual, stop)
        for shard in todo:
            if shard.id in suspects and not (stop.waited() or self._budget.is_hopeless):
                yield from self._try_suspect(shard, suspected, stop)

    def _committed(self, shards: Sequence[Shard], marks: Sequence[Mark]) -> list[Receipt]:
        """Return receipts of those *shards* that an earlier attempt began and committed.

        Looks up only shards that *marks* name, which workers that died have left; others cost no
        request. A shard without a mark that another worker has committed since the survey is mapped
        again, and that worker's part counts.
        """
        begun = {shard for mark in marks for shard in mark.shards}
        sentinels = Committer(self._work).committed([s for s in shards if s.id in begun])
        return [Receipt(shard, sentinel=sentinel) for shard, sentinel in sentinels.items()]

    def _suspicion(self, marks: Sequence[Mark], todo: frozenset[int]) -> Suspicion:
        if self._is_apart:
            return NO_SUSPICION
        if self._witness.node and any(todo.intersection(mark.shards) for mark in marks):
            record_deaths(self._records, todo, session=self._work.session)
        # The most shards that a worker can hold when it dies, if each shard is one batch, or a batch
        # has many of them: finished parts, batches read ahead, calls, batches waiting to be written,
        # and the one being read.
        most = self._work.spec.execution.batch_size if self._work.spans_shards else 1
        batches = BATCHES_AHEAD + BATCHES_BEHIND + self._usual.ahead + 1
        in_flight = GROUP_PARTS + batches * min(most, MOST_SHARDS)
        return suspicion(marks, todo, in_flight=in_flight, witness=self._witness)

    def _try_suspect(
        self, shard: Shard, suspected: Suspicion, stop: StopSignal
    ) -> Iterator[list[Receipt]]:
        """Process a suspect, isolated if workers died over it alone; fail it at `MOST_DEATHS`."""
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
        self, shards: Sequence[Shard], caller: AnyCaller, stop: StopSignal
    ) -> Iterator[list[Receipt]]:
        """Process *shards*, and retry those that the capability, a row or the input failed.

        Retries as often as `retry.max_attempts` allows, and once more if another worker has agreed
        on other types than the shard's rows had.
        """
        if shards:
            caller.begin(stop)
        remaining, attempt = list(shards), 0
        while remaining and not (attempt and stop.waited()):
            attempt += 1
            if attempt > 1:
                self._refresh_schema(caller)
            caller.renew()
            failed: dict[int, Receipt] = {}
            for receipts in self._attempt(remaining, caller, stop, is_first=attempt == 1):
                tries = min(attempt, self._work.spec.errors.retry.max_attempts)
                failed.update((r.shard, r.after(tries)) for r in receipts if r.uses_up_attempt)
                if final := [r for r in receipts if not r.uses_up_attempt]:
                    yield self._finalized(final, caller)
            to_retry = {id_ for id_, r in failed.items() if self._may_retry(r, attempt)}
            if final := [r for id_, r in failed.items() if id_ not in to_retry]:
                yield self._finalized(final, caller)
            remaining = [s for s in remaining if s.id in to_retry]

    def _may_retry(self, receipt: Receipt, attempt: int) -> bool:
        """Return whether the shard that failed in attempt number *attempt* has another one."""
        failure = receipt.failure
        # A failed row was retried by itself. If no call has ever succeeded, another attempt fails,
        # too.
        if failure is None or (failure.cause is Cause.ROW and self._budget.has_only_failed):
            return False
        # The driver divides the shard: then each of its files has its attempts.
        if failure.unreadable:
            return False
        return attempt < self._work.spec.errors.retry.max_attempts + failure.overtaken

    def _finalized(self, receipts: Sequence[Receipt], caller: AnyCaller) -> list[Receipt]:
        """Store the dead letters of shards that failed; return *receipts* with secrets masked."""
        # A shard that storage failed is handed out again, perhaps to this worker.
        ended = [receipt.shard for receipt in receipts if not receipt.is_storage_failure]
        committed = [receipt.shard for receipt in receipts if receipt.sentinel is not None]
        caller.forget(ended, committed=committed)
        for receipt in receipts:
            dead_letters = self._budget.end(receipt.shard)
            # A shard that storage failed collects its dead letters again.
            if dead_letters and receipt.failure and not receipt.is_storage_failure:
                stem = self._work.facts.stem(receipt.shard)
                keep_dead_letters(self._checkpoint, stem, dead_letters, epoch=self._work.epoch)
        return [receipt.scrubbed() for receipt in receipts]

    def _refresh_schema(self, caller: AnyCaller) -> None:
        """Make the next attempt read the schema again: other workers may have extended it."""
        self._schema.refresh()
        if isinstance(caller, IsolatedCaller):
            caller.close()  # the next call starts a process that reads the schema

    def _attempt(
        self,
        shards: Sequence[Shard],
        caller: AnyCaller,
        stop: StopSignal,
        *,
        is_first: bool,
    ) -> Iterator[list[Receipt]]:
        if not shards:
            return
        ids = [shard.id for shard in shards]
        session, node = self._work.session, self._witness.node
        # Marked before the first read, so that a death at any moment leaves the mark.
        with marked(self._records, ids, session=session, node=node):
            self._types.begin(is_final=not is_first)
            self._budget.begin(ids)
            committer = Committer(self._work, self._schema, self._pulse)
            group = ShardGroup(
                self._work, caller, self._budget, committer=committer, types=self._types
            )
            yield from self._noting_ends(group.process(shards, stop=stop))

    def _noting_ends(self, receipts: Iterator[list[Receipt]]) -> Iterator[list[Receipt]]:
        try:
            for together in receipts:
                for receipt in together:
                    self._pulse.end(receipt.shard)
                yield together
        finally:
            self._pulse.end_all()

    def close(self) -> None:
        """End the processes and threads that the calls of the capability use."""
        self._meter.close()
        self._usual.close()
        if self._isolated is not None and self._isolated is not self._usual:
            self._isolated.close()
        if self._function is not None:
            self._function.close()


def row_types(work: Work, schema: SinkSchema) -> RowTypes:
    """Return what holds the rows of a worker against earlier ones: their types, or the paths of their files."""
    made = work.facts.part_format
    if made.publishes_files:
        return FileNames(work.sink, apart=apart_from(work.spec))
    return RowTypes(schema if made.keeps_schema else None)
