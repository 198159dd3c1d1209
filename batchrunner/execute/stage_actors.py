"""The worker side of a stage on Ray: a process of its own, which builds the stage's capability once.

It gets blocks from the object store, which Ray has brought to its machine, and leaves its output there. What
goes back to the worker of the shards is how many rows, how many bytes, and which rows failed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from batchrunner.errors import CapabilityImportError
from batchrunner.execute.payload import Payload, unpacked
from batchrunner.execute.ray_rate_limit import gate_of
from batchrunner.execute.stage_blocks import Packed, pack, unpack
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import portable
from batchrunner.worker.blocks import Block
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.pulse import worker_name
from batchrunner.worker.stage_clock import Doing, SharedMeter, StageClock
from batchrunner.worker.stage_pool import StageAnswer
from batchrunner.worker.stage_runner import StageOutput, StageRunner
from batchrunner.worker.usage import Usage, portable_with_usage
from batchrunner.worker.worker_log import WorkerLog

OWN_THREADS = 2
"""Threads of the process beside those of its calls: one waits for its end, one answers what is asked of it."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a stage worker runs: its `<host>-<pid>`, and the id of its node."""

    worker: str
    node: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of building the capability.

    Attributes:
        failure: Why it cannot be built; empty if it was.
        calls: How many calls the worker takes at once.
    """

    failure: str = ""
    calls: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """How a call ended.

    Attributes:
        answer: What it gave, without the output itself; or what it raised.
        clock: What this worker has spent its time on so far. What it waited for, it does not know.
        used: What its calls have used so far.
    """

    answer: StageAnswer | Exception
    clock: StageClock
    used: Usage


Cut = tuple[int, int, int]
"""Rows of a call: the number of the block among those that are sent along, the first row, one past the last."""


class StageActor:
    """One worker of one stage.

    Ray calls it in several threads. The stage is built in one of its own, and called there unless it is
    asynchronous: what a library keeps for a thread is there at every call.
    """

    def __init__(self, payload: Payload, number: int) -> None:
        self._log = WorkerLog().begin()  # before the user's modules are imported, which may print
        self._payload, self._number = payload, number
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stage")
        self._gate, self._is_over = MeteredGate(), threading.Event()

    def place(self) -> Placed:
        """Return where this worker runs: that it has a place."""
        import ray

        return Placed(worker_name(), ray.get_runtime_context().get_node_id())

    def load(self) -> Loaded:
        """Build the stage."""
        return self._thread.submit(self._load).result()

    def _load(self) -> Loaded:
        try:
            work = unpacked(self._payload)
            self._log.store_in(work.checkpoint().storage, session=work.session)
            self._meter = SharedMeter(work.spec.stages[self._number].called, doing=Doing.LOADING)
            self._gate = MeteredGate.of(
                work.spec,
                gate_of(work, stage=self._number),
                stage=work.spec.stages[self._number],
            )
            self._runner = StageRunner(work, self._number, meter=self._gate)
            self._meter.loaded()
        except CapabilityImportError as error:
            return Loaded(scrubbed(str(error)))
        return Loaded(calls=self._runner.slots)

    def run(self, cuts: Sequence[Cut], *blocks: Packed) -> tuple[Answered, Packed]:
        """Call the stage with the rows that *cuts* name of *blocks*; return what came of it, and its output."""
        with self._meter.call(sum(stop - start for _, start, stop in cuts)):
            answer, packed = self._answer(
                [unpack(blocks[at], start, stop) for at, start, stop in cuts]
            )
        clock = replace(self._meter.clock(), limited=self._gate.limited)
        return Answered(answer, clock, self._gate.used), packed

    def _answer(self, blocks: Sequence[Block]) -> tuple[StageAnswer | Exception, Packed]:
        try:
            output = self._called(blocks)
            packed = pack(output.block)  # in here: what cannot be pickled is the fault of the call
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return portable_with_usage(error), ()
        answer = StageAnswer(
            None,
            len(output.block),
            output.block.nbytes,
            counts=output.counts,
            failed=tuple((row, portable(error)) for row, error in output.failed),
            untried=output.untried,
            seconds=output.seconds,
            usage=output.usage,
        )
        return answer, packed

    def _called(self, blocks: Sequence[Block]) -> StageOutput:
        if self._runner.slots > 1:
            return self._runner.run(blocks)
        return self._thread.submit(self._runner.run, blocks).result()

    def stay(self) -> None:
        """Return when this worker ends: an owner that waits for this learns of a death at once."""
        self._is_over.wait()

    def store(self) -> None:
        """Store the log so far."""
        self._log.store()

    def end(self) -> None:
        """Store the log, so that Ray may end the process."""
        self._gate.close()
        self._log.end()
        self._is_over.set()
