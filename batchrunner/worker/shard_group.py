"""Processes the shards of one group in one attempt; reading, calls and writing overlap.

There are three threads: `read_ahead` reads, the thread that iterates over `process` calls the
capability, `WriteBehind` writes and commits. A failure reaches the writing thread in the order of
the shard's rows.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from operator import attrgetter

from batchrunner.checkpoint.dead_letters import DeadLetter, dead_letters_of
from batchrunner.errors import CapabilityImportError, ShardFailedError, StorageError
from batchrunner.formats.format_error import FormatError
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import Shard
from batchrunner.worker.batch import MAX_BATCH_BYTES
from batchrunner.worker.budget import Budget, RowFailedError, TooManyFailedRowsError
from batchrunner.worker.calling import Answer, Caller
from batchrunner.worker.committer import Committer
from batchrunner.worker.isolation import IsolatedCaller
from batchrunner.worker.pipeline import WriteBehind, read_ahead
from batchrunner.worker.reading import Read, Step, read_shards
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.resolving import BatchOutput, Resolver
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.stopping import Grace, StopSignal, until_stopped
from batchrunner.worker.work import Work

BATCHES_AHEAD = BATCHES_BEHIND = 4


class ShardGroup:
    """Processes some shards in one attempt; used only once."""

    def __init__(
        self,
        work: Work,
        caller: Caller | IsolatedCaller,
        budget: Budget,
        *,
        committer: Committer,
        types: RowTypes,
    ) -> None:
        self._work, self._caller, self._budget = work, caller, budget
        self._types = types
        self._resolver = Resolver(caller.submit, work.spec.errors, types, budget=budget)
        self._committer, self._pulse = committer, committer.pulse
        # Only the calling thread adds to `_failed`, and only the writing thread to `_dropped`, so
        # neither needs a lock. `_failed` stops calls for a shard before the writing thread gets its
        # failure.
        self._failed: set[int] = set()
        self._dropped: set[int] = set()
        self._by_run = work.spec.called.mode == "run"

    def process(self, shards: Sequence[Shard], *, stop: StopSignal) -> Iterator[list[Receipt]]:
        """Process *shards*; yield their receipts, in one list if they are committed together.

        Ends early after a stop, or if all other rows would fail: the remaining shards get no
        receipt.
        """
        with ExitStack() as stack:
            stack.callback(self._committer.close)
            # Entered before the reader, so left after it: reading ends before writing does.
            behind = stack.enter_context(
                WriteBehind(depth=BATCHES_BEHIND, most_bytes=MAX_BATCH_BYTES)
            )
            ahead = stack.enter_context(
                read_ahead(
                    self._steps(shards),
                    depth=BATCHES_AHEAD,
                    most_bytes=MAX_BATCH_BYTES,
                    weigh=attrgetter("nbytes"),
                )
            )
            drain = Grace(self._work.spec.execution.grace_period).drain
            for step, answer in self._call(until_stopped(ahead, stop, drain=drain)):
                output = self._timed_output(step, answer)
                nbytes = 0 if isinstance(output, Failure) else output.nbytes
                yield from behind.do(self._write, Read.of(step), output, nbytes=nbytes)
                if self._budget.is_hopeless:
                    # The driver stops the run on the receipt of this shard.
                    break
            yield from behind.do(self._committer.commit)
            yield from behind.finish()

    def _steps(self, shards: Sequence[Shard]) -> Iterator[Step]:
        """Yield the steps of *shards*; the attempt at each begins when its reading does."""
        steps, began = self._read(shards), time.monotonic()
        for step in steps:
            self._pulse.attempt(step.shard.id).reading += time.monotonic() - began
            yield step
            began = time.monotonic()

    def _begun(self, shards: Sequence[Shard]) -> Iterator[Shard]:
        for shard in shards:
            self._pulse.begin(shard.id)
            yield shard

    def _read(self, shards: Sequence[Shard]) -> Iterator[Step]:
        return read_shards(
            self._begun(shards),
            self._work.spec.source,
            # A capability run is long: one that fails must not make others run again.
            batch_size=1 if self._by_run else self._work.spec.execution.batch_size,
            by_shape=self._work.takes_tables,
            to_retry=self._positions_to_retry,
        )

    def _positions_to_retry(self, shard: Shard, origin: int) -> dict[int, frozenset[int]]:
        """Return, by slice, the positions of the dead letters of shard *origin*, which *shard* retries."""
        checkpoint = self._work.checkpoint()
        stem = self._work.facts.stem(origin)
        sentinel = checkpoint.sentinel(stem, run_uid=self._work.run_uid)
        if sentinel is None:
            raise ShardFailedError(
                f"{shard}: shard {origin}, whose failed rows it retries, has no sentinel any more; "
                "`batchrunner verify SPEC` lists what is missing"
            )
        positions: dict[int, set[int]] = defaultdict(set)
        for dead_letter in dead_letters_of(checkpoint, sentinel):
            positions[dead_letter.get("slice", 0)].add(dead_letter["at"])
        return {number: frozenset(at) for number, at in positions.items()}

    def _call(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Answer | None]]:
        """Yield each step with the answer to its call, in order; submit a few calls ahead."""
        pending: deque[tuple[Step, Answer | None]] = deque()
        nbytes = 0
        for step in steps:
            has_failed = step.shard.id in self._dropped or step.shard.id in self._failed
            batch = None if has_failed else step.batch
            pending.append((step, self._caller.submit(batch) if batch else None))
            nbytes += step.nbytes
            while len(pending) >= self._caller.ahead or (pending and nbytes >= MAX_BATCH_BYTES):
                nbytes -= pending[0][0].nbytes
                yield pending.popleft()
        yield from pending

    def _timed_output(self, step: Step, answer: Answer | None) -> BatchOutput | Failure:
        attempt, began = self._pulse.attempt(step.shard.id), time.monotonic()
        output = self._output(step, answer)
        attempt.calling += time.monotonic() - began
        attempt.rows += step.rows
        attempt.bytes += step.nbytes
        return output

    def _output(self, step: Step, answer: Answer | None) -> BatchOutput | Failure:
        """Return the output of *step*, or why it fails the shard; empty if that failed before."""
        shard = step.shard
        if shard.id in self._failed:
            return BatchOutput()
        output = self._mapped(step, answer)
        if isinstance(output, Failure):
            self._failed.add(shard.id)
        if isinstance(output, Failure) or step.failure is not None:
            self._types.drop(shard.id)
        return output

    def _mapped(self, step: Step, answer: Answer | None) -> BatchOutput | Failure:
        shard = step.shard
        try:
            if step.batch is None or answer is None:
                return self._unreadable(step)
            self._budget.read(shard, rows=len(step.batch))
            return self._resolver.resolve(shard, step.batch, answer)
        except RowFailedError as error:
            return Failure(Cause.ROW, str(error), error.traceback)
        except CapabilityImportError as error:
            return Failure(Cause.IMPORT, str(error))
        except TooManyFailedRowsError as error:
            return Failure(Cause.BUDGET, str(error), error.traceback)

    def _unreadable(self, step: Step) -> BatchOutput:
        dead_letters = [
            DeadLetter.unreadable(step.shard, bad, number=step.number) for bad in step.bad
        ]
        self._budget.read(step.shard, rows=len(dead_letters))
        for dead_letter in dead_letters:
            self._budget.count(step.shard, dead_letter)
        return BatchOutput(dead_letters=dead_letters)

    def _write(self, step: Read, output: BatchOutput | Failure) -> list[Receipt]:
        """Add *output* to the part, or finish or drop the part; ignore a shard that has failed."""
        shard = step.shard
        if shard.id in self._dropped:
            return []
        try:
            if step.failure is None and not isinstance(output, Failure):
                return self._advance(step, output)
            failure = output if isinstance(output, Failure) else step.failure
        except SchemaError as error:
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}", overtaken=True)
        except FormatError as error:
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}", error.traceback)
        except (ShardFailedError, StorageError) as error:
            failure = Failure(Cause.STORAGE, f"{shard}: {error}")
        self._dropped.add(shard.id)
        self._committer.drop(shard)
        return [Receipt(shard.id, failure=failure)]

    def _advance(self, step: Read, output: BatchOutput) -> list[Receipt]:
        if step.is_end:
            return self._committer.finish(step.shard, source_hash=step.source_hash)
        self._committer.append(step.shard, output, rows_in=step.rows)
        return []
