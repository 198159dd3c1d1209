"""Answers batches in mode `row`: calls row by row, and keeps each answer until its shard has its receipt."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.user_code import contained
from batchrunner.worker.batch import Batch
from batchrunner.worker.calling import Answer, CallerEdges, Edges, Pieces, with_usage
from batchrunner.worker.kept_answers import KeptAnswers
from batchrunner.worker.lost_calls import RowsFailedError
from batchrunner.worker.row_call import Outcomes, RowCall
from batchrunner.worker.row_calls import RowAnswers, RowCalls
from batchrunner.worker.rows_in_turn import Stretch
from batchrunner.worker.stopping import StopSignal
from batchrunner.worker.usage import added, charging


class RowCaller(CallerEdges):
    """Calls one capability of mode `row` in this process.

    An answer raises `RowsFailedError` if rows have failed with all their attempts: the other rows are
    answered then, and a batch of them gets their answers without another call. It raises what a call raised
    if other rows were not tried: as long as no call has succeeded, one that fails is enough to ask why.

    Attributes:
        ahead: How many batches may be submitted before an answer is read.
        kept: The answers of shards that have no receipt yet.
    """

    def __init__(self, calls: RowCalls, *, kept: KeptAnswers, edges: Edges, ahead: int) -> None:
        self._calls, self.kept, self._edges = calls, kept, edges
        self.ahead = ahead if calls.is_async else 1

    def submit(self, batch: Batch) -> Answer:
        """Start the calls with the rows of *batch* if they are asynchronous; else reading the answer makes them."""
        try:
            read = self._begun(batch)
        except Exception as error:  # noqa: BLE001 - raised where answers are read
            return partial(_raise, error)
        return partial(contained, partial(self._answer, batch, read))

    def _begun(self, batch: Batch) -> RowAnswers:
        if not hasattr(batch, "pieces"):
            return self._calls.start(_unplaced(batch))
        if self._calls.takes_stretches and (stretch := self.kept.stretch(batch)) is not None:
            return partial(self._in_a_stretch, batch, stretch)
        tries = 1 if batch.is_sample else None
        return self._calls.start(self.kept.calls(batch), tries=tries)

    def _in_a_stretch(self, batch: Batch, stretch: Stretch) -> Outcomes:
        try:
            return self._calls.start_stretch(stretch)()
        finally:
            self.kept.keep(batch, stretch)

    def _answer(self, batch: Batch, read: RowAnswers) -> list[Pieces]:
        outcomes = read()
        self._check(outcomes, is_sample=getattr(batch, "is_sample", False))
        by_shard = [*outcomes.divided(batch.counts)]
        usages = [usage for _, usage in by_shard]
        with charging(added(*usages)):  # the sink may refuse what the rows gave
            output = self._edges.converted([[rows] for rows, _ in by_shard], batch)
        output = with_usage(output, usages)
        nbytes = sum(piece.nbytes for pieces in output for piece in pieces)
        self.kept.grow(nbytes, rows=len(outcomes))
        return output

    def _check(self, outcomes: Outcomes, *, is_sample: bool) -> None:
        """Raise an error unless all *outcomes* are answers."""
        errors = {index: one.error for index, one in outcomes.failed.items()}
        if broken := [e for e in errors.values() if isinstance(e, CapabilityImportError)]:
            raise broken[0]
        if outcomes.left or (errors and is_sample):
            raise next(iter(errors.values()), None) or self._calls.doubt or _never_called()
        if errors:
            used = added(*(one.usage for one in outcomes.failed.values()))
            raise RowsFailedError(errors, len(errors) < len(outcomes), used)

    def begin(self, stop: StopSignal) -> None:
        self._calls.waits.stop = stop
        self.kept.begin()

    def renew(self) -> None:
        self._calls.renew()
        self.kept.forgive()

    def forget(self, shards: Collection[int], *, committed: Collection[int]) -> None:
        self.kept.forget(shards, committed=committed)

    def close(self) -> None:
        self._calls.close()
        self.kept.close()


def _unplaced(batch: Any) -> list[RowCall]:
    """Return calls for a *batch* without places, whose rows another process keeps: it sent them, or checks."""
    return [RowCall(row, partial(_again, batch, i)) for i, row in enumerate(batch.rows())]


def _again(batch: Any, index: int) -> Row:
    rows: list[Row] = batch.rows()
    return rows[index]


def _never_called() -> Exception:
    return AssertionError("rows were not called, and no call failed")


def _raise(error: Exception) -> Any:
    raise error
