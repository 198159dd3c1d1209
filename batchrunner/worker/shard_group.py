"""Processes the shards of one group in one attempt; reading, calls and writing overlap.

There are three threads: `read_ahead` reads, the thread that iterates over `process` calls the
capability, `WriteBehind` writes and commits. A failure reaches the writing thread in the order of
the shard's rows. A worker with one CPU does all that in one thread until it waits (`Overlap`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

from batchrunner.checkpoint.dead_letters import DeadLetter
from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.format_error import FormatError
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import Shard
from batchrunner.worker.batch import MAX_BATCH_BYTES, Batch
from batchrunner.worker.budget import Budget, RowFailedError, TooManyFailedRowsError
from batchrunner.worker.calling import Answer, Caller
from batchrunner.worker.committer import Committer
from batchrunner.worker.isolation import IsolatedCaller
from batchrunner.worker.joining import joined_events
from batchrunner.worker.overlap import Overlap
from batchrunner.worker.picking import picked_events, positions_to_retry
from batchrunner.worker.pipeline import WriteBehind, read_ahead
from batchrunner.worker.reading import read_shards
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.resolving import BatchOutput, Outcome, Resolver, failure_of
from batchrunner.worker.row_caller import RowCaller
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.slow_shards import SlowShards
from batchrunner.worker.stage_clock import Doing
from batchrunner.worker.staged_caller import StagedCaller
from batchrunner.worker.steps import Grouping, Portion, Step, steps_of
from batchrunner.worker.stopping import Grace, StopSignal, until_stopped
from batchrunner.worker.thread_meters import ThreadMeters
from batchrunner.worker.work import Work

BATCHES_AHEAD = BATCHES_BEHIND = 4

_PATIENCE = 0.05
"""How long the next call waits for what is being written of a finished shard, as a share of the last."""


class ShardGroup:
    """Processes some shards in one attempt; used only once."""

    def __init__(
        self,
        work: Work,
        caller: Caller | RowCaller | StagedCaller | IsolatedCaller,
        budget: Budget,
        *,
        committer: Committer,
        types: RowTypes,
    ) -> None:
        self._work, self._caller, self._budget = work, caller, budget
        self._types = types
        self._resolver = Resolver(
            caller.submit, work.spec.errors, types, budget=budget, room=caller.room
        )
        self._committer, self._pulse = committer, committer.pulse
        # Only the calling thread adds to `_failed`, and only the writing thread to `_dropped`, so
        # neither needs a lock. `_failed` stops calls for a shard before the writing thread gets its
        # failure.
        self._failed: set[int] = set()
        self._dropped: set[int] = set()
        self._by_run = work.spec.called.mode == "run"
        self._slow = SlowShards(work.seconds, self._pulse)
        self._overlap = Overlap(is_on=not work.has_one_cpu)
        self._meters = ThreadMeters(self._pulse)

    def process(self, shards: Sequence[Shard], *, stop: StopSignal) -> Iterator[list[Receipt]]:
        """Process *shards*; yield their receipts, in one list if they are committed together.

        Ends early after a stop, or if all other rows would fail: the remaining shards get no
        receipt.
        """
        with ExitStack() as stack:
            stack.callback(self._committer.close)
            stack.callback(self._caller.abandon)
            stack.enter_context(self._meters.work())
            # Beside the calls, this thread waits for rows, or for room to write or to hand receipts over.
            stack.enter_context(self._pulse.calls.at(Doing.WAITING_INPUT))
            overlap, turn_to = self._overlap, self._pulse.calls.turn_to
            # Entered before the reader, so left after it: reading ends before writing does.
            behind = stack.enter_context(
                WriteBehind(depth=BATCHES_BEHIND, most_bytes=MAX_BATCH_BYTES, overlap=overlap)
            )
            ahead = stack.enter_context(
                read_ahead(
                    self._steps(shards),
                    depth=BATCHES_AHEAD,
                    most_bytes=MAX_BATCH_BYTES,
                    weigh=attrgetter("nbytes"),
                    overlap=overlap,
                )
            )
            self._slow.stop = stop
            drain = Grace(self._work.spec.execution.grace_period).drain
            steps = self._slow.ending(until_stopped(ahead, stop, drain=drain))
            for call in self._calls(steps):
                began = time.monotonic()
                turn_to(Doing.CALLING)
                written = self._outcomes(call)
                turn_to(Doing.WAITING_OUTPUT)
                seconds = time.monotonic() - began
                # Measured only for a queue: it takes longer than what else there is to do for a batch.
                outputs = (o for _, o in written if overlap.is_on and isinstance(o, BatchOutput))
                nbytes = sum(output.nbytes for output in outputs)
                yield from behind.do(self._write, written, nbytes=nbytes)
                if self._budget.is_hopeless:
                    # The driver stops the run on the receipt of this shard.
                    break
                if any(portion.is_end for portion, _ in written):
                    # Calls may take minutes: a receipt that is nearly there is not left to the next.
                    yield from behind.within(_PATIENCE * seconds)
                turn_to(Doing.WAITING_INPUT)
            turn_to(Doing.WAITING_OUTPUT)
            yield from behind.do(self._commit)
            yield from behind.finish()

    def _steps(self, shards: Sequence[Shard]) -> Iterator[Step]:
        """Yield the steps of *shards*; the attempt at each begins when its reading does."""
        to_retry = partial(positions_to_retry, self._work)
        events = read_shards(
            self._begun(shards),
            self._work.spec.source,
            to_retry=to_retry,
            by_columns=self._work.takes_tables,
            is_ended=self._slow.is_ended,
        )
        if self._work.takes_tables:
            events = picked_events(joined_events(events))
        steps, began = steps_of(events, self._grouping()), time.monotonic()
        for step in self._meters.reading(steps):
            for portion, seconds in step.shares(time.monotonic() - began):
                self._pulse.attempt(portion.shard.id).reading += seconds
            yield step
            began = time.monotonic()

    def _begun(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        for shard in shards:
            self._pulse.begin(shard.id)
            yield shard

    def _grouping(self) -> Grouping:
        return Grouping(
            # A capability run is long: one that fails must not make others run again.
            1 if self._by_run else self._work.spec.batch_size,
            by_shape=self._work.takes_tables,
            spans_shards=self._work.spans_shards,
            # Other workers wait for its part, which fixes the schema.
            alone=self._work.first,
        )

    def _calls(self, steps: Iterator[Step]) -> Iterator[_Call]:
        """Yield each step with its call, in order; submit a few calls ahead."""
        pending: deque[_Call] = deque()
        nbytes = 0
        for step in steps:
            pending.append(self._call(step))
            nbytes += step.nbytes
            while pending and self._caller.is_full(len(pending), nbytes, pending[0].answer):
                nbytes -= pending[0].step.nbytes
                yield pending.popleft()
        yield from pending

    def _call(self, step: Step) -> _Call:
        batch = step.batch and self._of_sound_shards(step.batch)
        if not batch:
            return _Call(step)
        with self._pulse.calls.at(Doing.CALLING):
            self._pulse.calls.count(rows=len(batch))
            return _Call(step, batch, self._resolver.submit(batch))

    def _of_sound_shards(self, batch: Batch) -> Batch:
        """Return *batch* without the rows of shards that have failed."""
        ids = [shard.id for shard in batch.shards]
        sound = [id_ for id_ in ids if id_ not in self._failed and id_ not in self._dropped]
        return batch if len(sound) == len(ids) else batch.of(sound)

    def _outcomes(self, call: _Call) -> list[tuple[Portion, Outcome]]:
        """Return what comes of each portion of the step; empty output for shards that failed before."""
        began, step = time.monotonic(), call.step
        resolved = self._resolved(call)
        outcomes = [(portion, self._outcome(portion, resolved)) for portion in step.portions]
        for portion, seconds in step.shares(time.monotonic() - began):
            attempt = self._pulse.attempt(portion.shard.id)
            attempt.calling += seconds
            attempt.rows += portion.rows_in
            attempt.bytes += portion.nbytes
        return outcomes

    def _resolved(self, call: _Call) -> dict[int, Outcome]:
        """Return the outcome of the batch, by shard id."""
        if call.batch is None or call.answer is None:
            return {}
        batch, answer = self._of_sound_shards(call.batch), call.answer
        if not batch:
            return {}
        if batch is not call.batch:  # one has failed since the call was submitted
            batch = replace(batch, is_retry=True)
            answer = self._resolver.submit(batch)
        for shard, rows in zip(batch.shards, batch.counts, strict=True):
            self._budget.read(shard, rows=rows)
        return self._resolver.resolve(batch, answer)

    def _outcome(self, portion: Portion, resolved: Mapping[int, Outcome]) -> Outcome:
        shard = portion.shard
        if shard.id in self._failed:
            return BatchOutput()
        outcome = resolved.get(shard.id, BatchOutput())
        if isinstance(outcome, BatchOutput):
            outcome = self._with_unreadable(portion, outcome)
        if not isinstance(outcome, BatchOutput):
            self._failed.add(shard.id)
        if portion.failure is not None:
            self._types.drop(shard.id)
        return outcome

    def _with_unreadable(self, portion: Portion, output: BatchOutput) -> BatchOutput | Failure:
        """Return *output* with the dead letters of the rows that could not be read."""
        if not portion.bad:
            return output
        shard = portion.shard
        dead_letters = [DeadLetter.unreadable(shard, bad, number=n) for n, bad in portion.bad]
        self._budget.read(shard, rows=len(dead_letters))
        try:
            for dead_letter in dead_letters:
                self._budget.count(shard, dead_letter)
        except (RowFailedError, TooManyFailedRowsError) as error:
            self._types.drop(shard.id)
            return failure_of(error)
        dead_letters = [*output.dead_letters, *dead_letters]
        return BatchOutput(output.pieces, dead_letters, output.lost_usage)

    def _write(self, outcomes: Sequence[tuple[Portion, Outcome]]) -> list[Receipt]:
        """Write the outcome of a step, shard by shard; return the receipts of those that ended."""
        rows = sum(o.rows for _, o in outcomes if isinstance(o, BatchOutput))
        with self._meters.writing(rows):
            # A shard's end comes before the rows of the next one: few parts are open at the same time.
            return [
                receipt
                for portion, outcome in outcomes
                for receipt in self._written(portion, outcome)
            ]

    def _commit(self) -> list[Receipt]:
        with self._meters.writing():
            return self._committer.commit()

    def _written(self, portion: Portion, outcome: Outcome) -> list[Receipt]:
        """Add *outcome* to the part, or finish or drop the part; ignore a shard that has failed."""
        shard = portion.shard
        if shard.id in self._dropped:
            return []
        failure: Failure | None
        try:
            if portion.failure is None and isinstance(outcome, BatchOutput):
                return self._advance(portion, outcome)
            failure = outcome if isinstance(outcome, Failure) else portion.failure
        except SchemaError as error:
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}", overtaken=True)
        except FormatError as error:
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}", error.traceback)
        except (ShardFailedError, StorageError) as error:
            failure = Failure(Cause.STORAGE, f"{shard}: {error}")
        self._dropped.add(shard.id)
        self._committer.drop(shard)
        # Rows that were not tried have no failure: the run ends, and their shard gets no receipt.
        return [Receipt(shard.id, failure=failure)] if failure else []

    def _advance(self, portion: Portion, output: BatchOutput) -> list[Receipt]:
        if portion.rows_in:
            self._committer.append(portion.shard, output, rows_in=portion.rows_in)
        if not portion.is_end:
            return []
        return self._committer.finish(
            portion.shard, source_hash=portion.source_hash, early_end=portion.early_end
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """A step, and the call of the capability with the rows of its batch whose shards have not failed."""

    step: Step
    batch: Batch | None = None
    answer: Answer | None = None
