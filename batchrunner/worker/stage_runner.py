"""What runs in the worker of a stage: builds its capability once, and calls it with blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchrunner.capability import load_target
from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.spec import ErrorsSpec, StageSpec
from batchrunner.user_code import contained, free_memory_of, is_out_of_memory
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.block_inputs import Input, inputs_of, rows_in
from batchrunner.worker.blocks import Block, Part, joined, own, own_value
from batchrunner.worker.calling import pieces_of
from batchrunner.worker.capability_loading import build, check_code
from batchrunner.worker.dividing import check_counts, divided
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.metering import Admission, Metered, MeteredGate
from batchrunner.worker.row_attempts import RowRules
from batchrunner.worker.row_call import Answered, Failed
from batchrunner.worker.row_calls import RowCalls
from batchrunner.worker.row_results import is_async
from batchrunner.worker.stage_pool import RowUsages
from batchrunner.worker.stopping import Grace
from batchrunner.worker.usage import Usage
from batchrunner.worker.waiting import Stopped, Waits
from batchrunner.worker.work import Work


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What a call of a stage gave: see `StageAnswer`, which has the same facts.

    Attributes:
        block: The output.
        counts: How many rows each input row gave; None if the stage does not keep origins.
        failed: In mode `row`, the input rows that failed, each with what it raised.
        untried: In mode `row`, the input rows that were not called.
        seconds: Seconds in the capability.
        usage: What the calls used, by the index of the input row.
    """

    block: Block
    counts: tuple[int, ...] | None
    failed: tuple[tuple[int, Exception], ...]
    seconds: float
    usage: RowUsages = ()
    untried: tuple[int, ...] = ()


class StageRunner:
    """Calls one stage in this process. Safe in several threads if the stage is asynchronous.

    Attributes:
        stage: The stage, with what it takes from `execution`.
        slots: How many threads may call `run` at the same time.
    """

    def __init__(self, work: Work, number: int, *, meter: MeteredGate | None = None) -> None:
        """Load and build stage *number* of *work*. It may take minutes: a model is loaded here.

        Each call passes *meter*; without one, no gate.

        Raises:
            CapabilityImportError: The stage cannot be imported or built, or its code is not what the
                driver read.
        """
        work.prepare()
        self.stage = work.spec.stages[number]
        if self.stage.processor:
            raise CapabilityImportError(
                f"capability.stages.{number}: a processor of ray.data.llm runs on Ray only, and this does without"
            )
        given = work.capability[number] if work.capability else None
        target = load_target(self.stage.code) if given is None else given
        function = build(target, self.stage, where=f"capability.stages.{number}")
        check_code(work)  # after the import: a file might change between an earlier check and it
        drain = Grace(work.spec.execution.grace_period).drain
        admission = Admission(meter or MeteredGate(), Waits(drain))
        self._calls = _Calls(function, self.stage, work.spec.errors, admission)
        self.slots = self._calls.slots

    def run(self, blocks: Sequence[Block]) -> StageOutput:
        """Call the stage with the rows of *blocks*, in this order, and return its output.

        In mode `row`, a row that fails costs no other one. In mode `batch`, the stage is called as often as
        it takes to give it rows that belong into one batch: more than once only if no one batch holds all
        of them exactly.

        Raises:
            Exception: What a call in mode `batch` raised; a `CallRaisedError` stands for what is no
                `Exception`. Nothing of the other calls counts then.
        """
        block = joined(blocks)
        if self.stage.mode == "row":
            return self._by_row(block)
        began = time.monotonic()
        outputs = self._outputs(block)
        seconds = time.monotonic() - began
        counts = (1,) * len(block) if self.stage.one_to_one else None
        usage, first = list[tuple[int, Usage]](), 0
        for rows, output, used in outputs:
            usage += [(first + row, one) for row, one in self._by_input_row(output, used)]
            first += rows
        block = joined([output for _, output, _ in outputs])
        return StageOutput(block, counts, (), seconds, tuple(usage))

    def _by_input_row(self, output: Block, used: Usage) -> Iterable[tuple[int, Usage]]:
        """Return what one call *used*, as its *output* says it, by the index of the input row."""
        if not (used and self.stage.one_to_one):
            return [(0, used)] if used else []
        each = [one for part in output.parts for one in self._calls.usages_in(part)]
        return [(row, one) for row, one in enumerate(each) if one]

    def _outputs(self, block: Block) -> list[tuple[int, Block, Usage]]:
        """Return for each call how many rows it had, its output, and what it used."""
        batch_format, one_to_one = self.stage.batch_format or "rows", self.stage.one_to_one
        inputs = inputs_of(block, batch_format, one_to_one=one_to_one)
        try:
            return [(one.rows, *self._output(one)) for one in inputs]
        except Exception as error:  # the user's code may raise anything
            if is_out_of_memory(error):  # before the next call, which needs the room
                free_memory_of(error)
            raise

    def _output(self, given: Input) -> tuple[Block, Usage]:
        metered = self._calls.of_batch(given.argument)
        returned = metered.answer
        if not self.stage.one_to_one:
            types = _common(given.types)
            parts = tuple(part for one in returned if (part := Part.of(one, types)).rows)
            return Block(parts), metered.usage
        each = zip(divided(returned, given.counts), given.types, strict=True)
        block = Block(tuple(Part.of(one, types) for some, types in each for one in some))
        check_counts([len(block)], [given.rows])
        return block, metered.usage

    def _by_row(self, block: Block) -> StageOutput:
        rows, types = rows_in(block.parts)
        began = time.monotonic()
        outcomes = self._calls.of_rows(rows)
        seconds = time.monotonic() - began
        failed = tuple((n, one.error) for n, one in enumerate(outcomes) if isinstance(one, Failed))
        if broken := [error for _, error in failed if isinstance(error, CapabilityImportError)]:
            raise broken[0]
        untried = tuple(n for n, one in enumerate(outcomes) if one is None)
        usage = tuple((n, one.usage) for n, one in enumerate(outcomes) if one and one.usage)
        given = [one.rows if isinstance(one, Answered) else [] for one in outcomes]
        counts, parts = tuple(map(len, given)), []
        for part, of_part in zip(block.parts, types, strict=True):
            some, given = given[: part.rows], given[part.rows :]
            parts.append(Part.of([row for rows in some for row in rows], of_part))
        block = Block(tuple(p for p in parts if p.rows))
        return StageOutput(block, counts, failed, seconds, usage, untried)

    def close(self) -> None:
        """End the calls that are in flight."""
        self._calls.close()


def _common(types: Sequence[InputTypes]) -> InputTypes:
    """Return the types for output rows of which it is not known whose they are."""
    first, *others = types or (InputTypes(),)
    if all(one == first for one in others):
        return first
    return InputTypes(tuple(dict.fromkeys(schema for one in types for schema in one.schemas)))


class _Calls:
    """Makes the calls of one stage.

    Attributes:
        slots: How many threads may call at the same time.
    """

    def __init__(
        self, function: Any, stage: StageSpec, errors: ErrorsSpec, admission: Admission
    ) -> None:
        self._function, self._kwargs = function, stage.fn_kwargs
        self._admission, meter = admission, admission.meter
        most = stage.max_concurrency or 1
        rules = RowRules(errors, most)
        self._rows = RowCalls(
            function, self._kwargs, rules=rules, meter=meter, waits=admission.waits
        )
        self._loop = EventLoop(most) if is_async(function) and stage.mode == "batch" else None
        # Of rows, the next batch fills the places that the last calls of one leave.
        self.slots = most if self._loop else 2 if self._rows.is_async else 1

    def usages_in(self, part: Part) -> list[Usage]:
        """Return what each row of *part*, which the stage returned, says that it used."""
        table = part.table
        return self._admission.meter.usages_in(part.content if table is None else table)

    def of_batch(self, argument: Any) -> Metered:
        """Return what the stage returned or, piece by piece, yielded for a batch, and what it used."""
        if self._loop is not None:
            return contained(self._loop.submit(self._awaited(argument, self._loop.calls)).result)
        call = partial(self._admission.call, argument, partial(self._pieces, argument))
        return contained(call)

    def _pieces(self, argument: Any) -> list[Any]:
        result = self._function(argument, **self._kwargs)
        return pieces_of(result)

    async def _awaited(self, argument: Any, calls: asyncio.Semaphore) -> Metered:
        async with calls:
            return await self._admission.call_later(argument, partial(self._later, argument))

    async def _later(self, argument: Any) -> list[Any]:
        result = self._function(argument, **self._kwargs)
        if isinstance(result, AsyncIterator):
            return [own(piece) async for piece in result]
        return [await result]

    def of_rows(self, rows: Sequence[Row]) -> list[Answered | Failed | None]:
        """Return what came of each row; None of one that was left alone.

        Raises:
            Exception: All were, since no call has ever succeeded, and this one failed.
        """
        outcomes = self._rows.call(
            [*map(own_value, rows)], again=lambda index: own_value(rows[index])
        )
        if not any(outcomes):
            raise self._rows.doubt or AssertionError("no row was called")
        return outcomes

    def close(self) -> None:
        """End what is in flight, or waits."""
        self._admission.waits.stop = Stopped()
        self._rows.close()
        if self._loop is not None:
            self._loop.close()
