"""Answers batches in mode `row`: calls row by row, and keeps each answer until its shard has its receipt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from itertools import islice
from typing import Any

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.user_code import contained
from batchrunner.worker.batch import Batch
from batchrunner.worker.calling import Answer, CallerEdges, Edges, Pieces, with_usage
from batchrunner.worker.kept_answers import KeptAnswers
from batchrunner.worker.lost_calls import RowsFailedError
from batchrunner.worker.row_calls import Answered, Failed, RowAnswers, RowCall, RowCalls, RowOutcome
from batchrunner.worker.stopping import StopSignal
from batchrunner.worker.usage import added


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
            placed = hasattr(batch, "pieces")
            calls = self.kept.calls(batch) if placed else _unplaced(batch)
        except Exception as error:  # noqa: BLE001 - raised where answers are read
            return partial(_raise, error)
        answers = self._calls.start(calls, tries=1 if getattr(batch, "is_sample", False) else None)
        return partial(contained, partial(self._answer, batch, answers))

    def _answer(self, batch: Batch, read: RowAnswers) -> list[Pieces]:
        outcomes = read()
        self._check(outcomes, is_sample=getattr(batch, "is_sample", False))
        answers = iter(outcome for outcome in outcomes if isinstance(outcome, Answered))
        by_shard = [list(islice(answers, count)) for count in batch.counts]
        output = self._edges.converted([[_joined(of_shard)] for of_shard in by_shard], batch)
        output = with_usage(
            output, [added(*(one.usage for one in some if one.usage)) for some in by_shard]
        )
        nbytes = sum(piece.nbytes for pieces in output for piece in pieces)
        self.kept.grow(nbytes, rows=len(outcomes))
        return output

    def _check(self, outcomes: Sequence[RowOutcome], *, is_sample: bool) -> None:
        """Raise an error unless all *outcomes* are answers."""
        errors = {i: one.error for i, one in enumerate(outcomes) if isinstance(one, Failed)}
        if broken := [e for e in errors.values() if isinstance(e, CapabilityImportError)]:
            raise broken[0]
        if None in outcomes or (errors and is_sample):
            raise next(iter(errors.values()), None) or self._calls.doubt or _never_called()
        if errors:
            used = added(*(one.usage for one in outcomes if isinstance(one, Failed)))
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


def _joined(answers: Sequence[Answered]) -> list[Row]:
    return [row for answer in answers for row in answer.rows]


def _never_called() -> Exception:
    return AssertionError("rows were not called, and no call failed")


def _raise(error: Exception) -> Any:
    raise error
