"""The contract between a shard's worker and the workers of its stages.

The worker hands out calls and gets back where their output is. It sees numbers of rows and bytes, and errors;
rows stay in the store of the engine until the last stage is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from batchrunner.spec import StageSpec
from batchrunner.worker.blocks import Block
from batchrunner.worker.stage_clock import Doing, StageClock
from batchrunner.worker.usage import Usage

RowUsages = tuple[tuple[int, Usage], ...]
"""Indices of rows, each with what was used for it."""


class RowsLostError(Exception):
    """Rows in the store of the engine are gone, as with their node: they have to be made again."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one block in the store.

    Attributes:
        handle: Where the block is.
        start: The first row.
        stop: One past the last row.
    """

    handle: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """What came of one call of a stage.

    Attributes:
        handle: Where the output is; None if there is no row in it.
        rows: Number of rows of the output.
        nbytes: About how many bytes they take.
        counts: How many output rows each input row gave, in order; None if the stage does not keep
            origins (`StageSpec.keeps_origins`).
        failed: In mode `row`, the input rows that failed, by their index, each with its error; they gave
            no row. The errors survive pickling.
        untried: In mode `row`, the input rows that were not called, by their index: as long as no call has
            succeeded, others are left alone once one has failed.
        seconds: Seconds that the call took in the capability.
        usage: What it used, by the index of the input row for which it did: of a call that does not say for
            which, the first one.
    """

    handle: Any
    rows: int
    nbytes: int
    counts: tuple[int, ...] | None = None
    failed: tuple[tuple[int, Exception], ...] = ()
    untried: tuple[int, ...] = ()
    seconds: float = 0.0
    usage: RowUsages = ()


class StagePool(Protocol):
    """The workers of one stage, owned by one worker of shards. They end when it does, however it ends.

    One thread calls `put` and `get`, another one the other methods. What `submit` returns is completed in any
    thread, in any order.
    """

    def room(self) -> int:
        """Return how many calls it takes now without one having to wait long.

        That is one for each idle worker, and about one for each busy one, so that none waits for input
        between two calls. A pool that grows counts on being asked for more than its workers do.
        """

    def wants(self, rows: int, *, idle: Doing) -> None:
        """Note that *rows* wait in front of the stage, for a pool that grows and shrinks by that.

        *idle* is what a worker without a call is at: it waits for input, or for output, since what follows
        has no room; or nothing is on its way to it.
        """

    def submit(self, spans: Sequence[Span]) -> Future[StageAnswer]:
        """Call the stage with the rows of *spans*, in this order.

        The spans may be of several handles, and are at least one row together. A call whose worker dies is
        made once more on another one.

        The future raises what the call raised, as an `Exception` that survives pickling and has the
        place in the user's code (`user_code.portable`); `CallLostError` if its worker died both
        times; `CallTimedOutError` after `errors.batch_timeout`, and then without a second try;
        `CapabilityImportError` if the stage cannot be built; `RowsLostError` if rows of the spans are gone
        from the store, as with their node.
        """

    def put(self, block: Block) -> Any:
        """Put *block* into the store; return its handle. It stays there as long as the handle is referenced."""

    def get(self, span: Span) -> Block:
        """Return the rows of *span* out of the store, as rows of the receiver's own: it may change them.

        Raises:
            RowsLostError: They are gone, as with their node.
        """

    def clock(self) -> StageClock:
        """Return how the time was spent so far."""

    def close(self) -> None:
        """End the workers, and with them the calls that are in flight. Returns soon, also if one hangs."""


class Pools(Protocol):
    """Makes the pools of one worker of shards: what its engine gives it."""

    @property
    def most_bytes(self) -> int:
        """How many bytes the blocks of this worker may take together in the store of the engine."""

    @property
    def most_tickets(self) -> int:
        """How many batches of the source may be on their way at the same time."""

    @property
    def is_apart(self) -> bool:
        """Whether the stages run in processes of their own, so that no row can end that of the shards."""

    def of(self, number: int, stage: StageSpec) -> StagePool:
        """Return the pool of stage *number*, which is *stage*, with what `execution` gives it.

        Returns at once: its workers are built meanwhile.
        """
