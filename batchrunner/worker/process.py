"""From shards to committed parts: read, map, write, commit. Knows no engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from batchrunner.capability import load_target
from batchrunner.checkpoint.dead_letters import DeadLetter, dead_letters_of, keep_dead_letters
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
from batchrunner.errors import CapabilityImportError, ShardFailedError, StorageError
from batchrunner.formats.contract import Format, RowFormat
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import Shard
from batchrunner.worker.batch import MAX_BATCH_BYTES, Batch, Given
from batchrunner.worker.budget import Budget, RowFailedError, TooManyFailedRowsError
from batchrunner.worker.calling import Answer, Caller, build
from batchrunner.worker.code_check import check_code
from batchrunner.worker.committer import GROUP_PARTS, Committer
from batchrunner.worker.isolation import IsolatedCaller
from batchrunner.worker.pipeline import WriteBehind, read_ahead
from batchrunner.worker.reading import Read, Step, read_shards
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.resolving import Made, Resolver
from batchrunner.worker.returned import to_bytes, to_table
from batchrunner.worker.schema import RowTypes, SinkSchema
from batchrunner.worker.stopping import Grace, Stop, until_stopped
from batchrunner.worker.work import Work

BATCHES_AHEAD = BATCHES_BEHIND = 4


def direct_caller(
    work: Work, schema: SinkSchema, *, given: Callable[[Batch], Given] = attrgetter("given")
) -> Caller:
    """Load and build the capability, to be called in this process.

    What it returns is in the *schema* of the sink where one is declared. Columns that it passes on
    keep the types that are *given*.

    Raises:
        CapabilityImportError: It cannot be imported or built, or changed since the driver looked.
    """
    work.prepare()
    spec = work.spec.called
    capability = build(work.capability or load_target(spec.target), spec)
    if spec.mode == "run":
        from batchrunner.worker.capability_runs import CapabilityRuns

        store = work.spec.analytics_store.uri if work.spec.analytics_store else ""
        capability = CapabilityRuns(capability, inputs=spec.inputs, store=store)
    check_code(work)  # not before: a file may change right before it is imported
    ready = _ready(work.facts.part_format, schema)
    return Caller(capability, spec, work.spec.execution, ready=ready, given=given)


def _ready(part_format: Format, schema: SinkSchema) -> Callable[[Any, Given], tuple[Any, int]]:
    if isinstance(part_format, RowFormat):
        return partial(to_bytes, encode=part_format.encode)
    to_table([{"loads": 1}], Given())  # pyarrow loads pandas with the first: no call pays for it
    return partial(_as_table, schema)


def _as_table(schema: SinkSchema, returned: Any, given: Given) -> tuple[Any, int]:
    table, rows = to_table(returned, given, lenient=schema.declared is not None)
    return schema.fitted(table), rows


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
        always_apart = work.spec.errors.batch_timeout is not None
        self._usual = self._apart() if always_apart else self._direct()

    def _direct(self) -> Caller:
        return direct_caller(self._work, self._schema, given=self._given)

    def _given(self, batch: Batch) -> Given:
        return replace(batch.given, types=self._types.hints(batch.given.types))

    def process(self, shards: Sequence[Shard], *, stop: Stop) -> Iterator[list[Receipt]]:
        """Process *shards* and yield how each ended: committed by itself, or not at all.

        Receipts come together when their parts were committed together. What fails costs its shard;
        a row that fails, itself. What has killed a worker before is tried by itself, and then in
        isolation. After a stop, or once nothing has any hope, shards that were not begun have no
        receipt.
        """
        if self._budget.is_hopeless:
            return
        self._schema.waits = self._work.first not in {None, *(shard.id for shard in shards)}
        marks = marks_left(self._records)
        begun = {shard for mark in marks for shard in mark.shards}
        # Whoever died over a group left a mark, so no request is spent on shards without one.
        # One that somebody committed alive, since the survey, is mapped again and adopted.
        done = Committer(self._work).committed([shard for shard in shards if shard.id in begun])
        if done:
            yield [Receipt(shard, sentinel=sentinel) for shard, sentinel in done.items()]
        todo = [shard for shard in shards if shard.id not in done]
        in_flight = GROUP_PARTS + BATCHES_AHEAD + BATCHES_BEHIND + self._usual.ahead + 1
        seen = self._suspicion(marks, frozenset(shard.id for shard in todo), in_flight=in_flight)
        yield from self._try([s for s in todo if s.id not in seen.suspects], self._usual, stop)
        for shard in todo:
            if shard.id in seen.suspects and not (stop.waited() or self._budget.is_hopeless):
                yield from self._with_care(shard, seen, stop)

    def _suspicion(
        self, marks: Sequence[Mark], todo: frozenset[int], *, in_flight: int
    ) -> Suspicion:
        if self._witness.node and any(todo.intersection(mark.shards) for mark in marks):
            record_deaths(self._records, todo, session=self._work.session)
        return suspicion(marks, todo, in_flight=in_flight, witness=self._witness)

    def _with_care(self, shard: Shard, seen: Suspicion, stop: Stop) -> Iterator[list[Receipt]]:
        deaths = seen.deaths[shard.id]
        if deaths >= MOST_DEATHS:
            reason = (
                f"{shard}: {deaths} workers died over it, with its capability in another process"
            )
            yield [Receipt(shard.id, failure=Failure(Cause.CAPABILITY, reason))]
            return
        is_guilty = deaths or seen.outside[shard.id] >= self._witness.patience
        yield from self._try([shard], self._apart() if is_guilty else self._usual, stop)

    def _apart(self) -> IsolatedCaller:
        if self._isolated is None:
            spec = self._work.spec
            by_rows = not self._work.takes_tables
            self._isolated = IsolatedCaller(
                self._pickled(),
                given=self._given,
                by_rows=by_rows,
                timeout=spec.errors.batch_timeout,
                memory=spec.execution.memory,
            )
        return self._isolated

    def _try(
        self, shards: Sequence[Shard], caller: Caller | IsolatedCaller, stop: Stop
    ) -> Iterator[list[Receipt]]:
        """Process *shards*, and once more those that the user's side failed, as often as allowed.

        What another worker's types have overtaken is nobody's failure: once more in any case.
        """
        left, attempt = list(shards), 0
        while left and not (attempt and stop.waited()):
            attempt += 1
            failed: dict[int, Receipt] = {}
            if attempt > 1:
                self._look_again(caller)
            for receipts in self._marked(left, caller, stop, is_first=attempt == 1):
                tries = min(attempt, self._work.spec.errors.retry.max_attempts)
                failed.update((r.shard, r.after(tries)) for r in receipts if r.is_given_up)
                if settled := [r for r in receipts if not r.is_given_up]:
                    yield self._settled(settled)
            given_up = [r for r in failed.values() if not self._has_more(r, attempt)]
            if given_up:
                yield self._settled(given_up)
            left = [s for s in left if s.id in failed and failed[s.id] not in given_up]

    def _has_more(self, receipt: Receipt, attempt: int) -> bool:
        """Tell whether a shard that has failed in so many attempts has another one.

        None for a row, where no call has ever succeeded: that row had its tries.
        """
        failure = receipt.failure
        if failure is None or (failure.cause is Cause.ROW and self._budget.has_only_failed):
            return False
        return attempt < self._work.spec.errors.retry.max_attempts + failure.overtaken

    def _settled(self, receipts: Sequence[Receipt]) -> list[Receipt]:
        """Return *receipts* as they may be told, with the dead letters kept of what is given up."""
        for receipt in receipts:
            dead_letters = self._budget.end(receipt.shard)
            if dead_letters and receipt.failure and receipt.failure.cause is not Cause.STORAGE:
                stem = self._work.facts.stem(receipt.shard)
                keep_dead_letters(self._checkpoint, stem, dead_letters, epoch=self._work.epoch)
        return [receipt.scrubbed() for receipt in receipts]

    def _look_again(self, caller: Caller | IsolatedCaller) -> None:
        """See that a schema which somebody fixed meanwhile is known before the next attempt."""
        self._schema.look_again()
        if isinstance(caller, IsolatedCaller):
            caller.close()  # a new process looks by itself

    def _marked(
        self,
        shards: Sequence[Shard],
        caller: Caller | IsolatedCaller,
        stop: Stop,
        *,
        is_first: bool,
    ) -> Iterator[list[Receipt]]:
        if shards:
            ids = [shard.id for shard in shards]
            session, node = self._work.session, self._witness.node
            with marked(self._records, ids, session=session, node=node):
                self._types.begin(is_final=not is_first)
                self._budget.begin(ids)
                group = _Group(
                    self._work, caller, self._budget, schema=self._schema, types=self._types
                )
                yield from group.process(shards, stop=stop)

    def close(self) -> None:
        """End what the calls of the capability needed."""
        self._usual.close()
        if self._isolated is not None:
            self._isolated.close()


class _Group:
    """Some shards on their way: reading, the capability and writing overlap."""

    def __init__(
        self,
        work: Work,
        caller: Caller | IsolatedCaller,
        budget: Budget,
        *,
        schema: SinkSchema,
        types: RowTypes,
    ) -> None:
        self._work, self._caller, self._budget = work, caller, budget
        self._types = types
        self._resolver = Resolver(caller.submit, work.spec.errors, types, budget=budget)
        self._committer = Committer(work, schema)
        self._given_up: set[int] = set()
        self._failed: set[int] = set()
        """As `_given_up`, which the thread that writes knows: known here before that hears of it."""
        self._by_run = work.spec.called.mode == "run"

    def process(self, shards: Sequence[Shard], *, stop: Stop) -> Iterator[list[Receipt]]:
        spec = self._work.spec
        steps = read_shards(
            shards,
            spec.source,
            # A run is long, and one that fails must not have its neighbours run again.
            batch_size=1 if self._by_run else spec.execution.batch_size,
            by_shape=self._work.takes_tables,
            set_aside=self._set_aside_by_origin,
        )
        drain = Grace(spec.execution.grace_period).drain
        with ExitStack() as stack:
            stack.callback(self._committer.close)
            behind = stack.enter_context(
                WriteBehind(depth=BATCHES_BEHIND, most_bytes=MAX_BATCH_BYTES)
            )
            ahead = stack.enter_context(
                read_ahead(
                    steps,
                    depth=BATCHES_AHEAD,
                    most_bytes=MAX_BATCH_BYTES,
                    weigh=attrgetter("nbytes"),
                )
            )
            for step, answer in self._call(until_stopped(ahead, stop, drain=drain)):
                made = self._outcome(step, answer)
                held = 0 if isinstance(made, Failure) else sum(p.nbytes for p in made.pieces)
                yield from behind.do(self._write, Read.of(step), made, nbytes=held)
                if self._budget.is_hopeless:  # the driver stops the run when it hears of it
                    break
            yield from behind.do(self._committer.commit)
            yield from behind.finish()

    def _call(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Answer | None]]:
        """Pair each step with the capability's answer to it, in order, a few calls ahead."""
        pending: deque[tuple[Step, Answer | None]] = deque()
        held = 0
        for step in steps:
            is_over = step.shard.id in self._given_up or step.shard.id in self._failed
            batch = None if is_over else step.batch
            pending.append((step, self._caller.submit(batch) if batch else None))
            held += step.nbytes
            while len(pending) >= self._caller.ahead or (pending and held >= MAX_BATCH_BYTES):
                held -= pending[0][0].nbytes
                yield pending.popleft()
        yield from pending

    def _outcome(self, step: Step, answer: Answer | None) -> Made | Failure:
        """Return what comes of a step; nothing, of a shard that has failed."""
        if step.shard.id in self._failed:
            return Made()
        made = self._made(step, answer)
        if isinstance(made, Failure):
            self._failed.add(step.shard.id)
        return made

    def _made(self, step: Step, answer: Answer | None) -> Made | Failure:
        """Return what comes of a step; its failure when that costs the shard."""
        shard = step.shard
        try:
            if step.batch is None or answer is None:
                made = self._set_aside(step)
            else:
                self._budget.read(shard, rows=len(step.batch))
                made = self._resolver.resolve(shard, step.batch, answer)
            if step.failure is not None:
                self._types.forget(shard.id)
        except RowFailedError as error:
            self._types.forget(shard.id)
            return Failure(Cause.ROW, str(error), error.traceback)
        except CapabilityImportError as error:
            return Failure(Cause.IMPORT, str(error))
        except TooManyFailedRowsError as error:
            return Failure(Cause.BUDGET, str(error), error.traceback)
        return made

    def _set_aside_by_origin(self, shard: Shard) -> frozenset[int]:
        """Return where the rows stand that *shard* is to try again."""
        checkpoint = self._work.checkpoint()
        stem = self._work.facts.stem(shard.start)
        origin = checkpoint.sentinel(stem, run_uid=self._work.run_uid)
        if origin is None:
            raise ShardFailedError(f"{shard}: shard {shard.start} is not committed any more")
        return frozenset(dead_letter["at"] for dead_letter in dead_letters_of(checkpoint, origin))

    def _set_aside(self, step: Step) -> Made:
        dead_letters = [DeadLetter.unreadable(step.shard, bad) for bad in step.bad]
        self._budget.read(step.shard, rows=len(dead_letters))
        for dead_letter in dead_letters:
            self._budget.count(step.shard, dead_letter)
        return Made(dead_letters=dead_letters)

    def _write(self, step: Read, made: Made | Failure) -> list[Receipt]:
        """Do with the part what *step* says; once a shard failed, nothing more."""
        shard = step.shard
        if shard.id in self._given_up:
            return []
        try:
            if step.failure is None and not isinstance(made, Failure):
                return self._advance(step, made)
            failure = made if isinstance(made, Failure) else step.failure
        except SchemaError as error:
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}", overtaken=True)
        except (ShardFailedError, StorageError) as error:
            failure = Failure(Cause.STORAGE, f"{shard}: {error}")
        self._given_up.add(shard.id)
        self._committer.drop(shard)
        return [Receipt(shard.id, failure=failure)]

    def _advance(self, step: Read, made: Made) -> list[Receipt]:
        if step.is_end:
            return self._committer.finish(step.shard, source_hash=step.source_hash)
        self._committer.append(step.shard, made, rows_in=step.rows)
        return []
