"""Calls a capability of several stages: batches go in as tickets, and their answers are read in order.

A thread of its own hands out the calls (`worker/staging.py`), so that the stages go on while the thread of the
shards reads, converts and writes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from itertools import count
from typing import Any

from batchrunner.spec import BatchSpec
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.blocks import Block, Part
from batchrunner.worker.calling import Answer, CallerEdges, Edges, Pieces, with_usage
from batchrunner.worker.lost_calls import RowsFailedError
from batchrunner.worker.stage_clock import StageClock
from batchrunner.worker.stage_line import StageLine
from batchrunner.worker.stage_pool import Pools, RowsLostError
from batchrunner.worker.staged_output import Output
from batchrunner.worker.staging import MOST_TURNS, Staging
from batchrunner.worker.tickets import BytesOnTheWay, Kept, Ticket

_LINGER_SECONDS = 0.05
"""How long rows wait for others to fill their batch while the reader may bring some."""

_RETRIES_FIRST = 1 << 40
"""Taken off the number of a ticket whose batch is tried again: its answer is waited for."""


class StagedCaller(CallerEdges):
    """Calls the stages of one capability. Answers raise what the user's code raised, as an `Exception`.

    An answer raises `RowsFailedError` if rows have failed with all their attempts: a batch of the other rows
    then gets their answers without another call. The errors know their stage (`user_code.stage_of`).

    Attributes:
        ahead: How many batches may be submitted before an answer is read, at most.
    """

    def __init__(
        self,
        spec: BatchSpec,
        pools: Pools,
        *,
        edges: Edges,
    ) -> None:
        stages = spec.stages
        made = [pools.of(number, stage) for number, stage in enumerate(stages)]
        self._first, self._pools = made[0], made
        self.ahead = pools.most_tickets
        self._input_types: Callable[[Any], InputTypes] = edges.input_types
        first = stages[0]
        self._takes_tables = first.mode == "batch" and first.batch_format != "rows"
        self._output = Output(made[-1].get, edges.ready, stage=stages[-1].called)
        self._made_again: _MadeAgain | None = None
        self._tries = spec.errors.retry.max_attempts
        self._tried: dict[tuple[Any, ...], _Tried] = {}
        on_the_way = BytesOnTheWay()
        lines = [
            StageLine(number, stage, pool, on_the_way)
            for number, (stage, pool) in enumerate(zip(stages, made, strict=True))
        ]
        staging = Staging(
            lines,
            on_the_way,
            most_bytes=pools.most_bytes,
            tries=spec.errors.retry.max_attempts,
            later=self._later,
        )
        self._numbers = count()
        self._thread = _StagingThread(staging)

    def _later(self, action: Callable[[], None]) -> None:
        self._thread.do(action)

    def submit(self, batch: Batch) -> Answer:
        """Let *batch* begin its way through the stages."""
        if self._made_again is not None and self._made_again.key == _key(batch):
            pieces = self._made_again.pieces
            return lambda: [pieces]
        if used_up := self._used_up(batch):
            is_sample = getattr(batch, "is_sample", False)
            return partial(_raise, used_up[0] if is_sample else RowsFailedError(used_up, False))
        try:
            ticket = self._entered(batch)
        except Exception as error:  # noqa: BLE001 - raised where answers are read
            return partial(_raise, error)
        return _TicketAnswer(ticket, partial(self._answer, ticket))

    def _entered(self, batch: Batch) -> Ticket:
        content = batch.in_format("pyarrow") if self._takes_tables else batch.rows()
        rows = sum(batch.counts)
        block = Block((Part(content, rows, batch.input_types),))
        source = Kept(self._first.put(block), block.nbytes)
        number = next(self._numbers) - (_RETRIES_FIRST if getattr(batch, "is_retry", False) else 0)
        ticket = Ticket(number, batch, rows)
        if self._tried and rows == 1 and (tried := self._tried.get(_key(batch))):
            ticket.attempts[0] = tried.attempts
        self._thread.enter(ticket, source)
        return ticket

    def _answer(self, ticket: Ticket) -> list[Pieces]:
        """Return the output of *ticket*, once it is through; it begins anew if its rows were lost meanwhile."""
        for _ in range(MOST_TURNS - 1):
            try:
                return [self._pieces(ticket)]
            except RowsLostError:
                ticket = self._entered(replace(ticket.batch, is_retry=True))
        return [self._pieces(ticket)]

    def _pieces(self, ticket: Ticket) -> Pieces:
        self._thread.wait_for(ticket)
        try:
            self._check(ticket)
            outputs = sorted(ticket.outputs, key=lambda stretch: stretch.order)
            types = partial(self._expected, ticket.batch)
            pieces, failed = self._output.pieces(outputs, ticket.failed, types=types)
        finally:
            self._thread.read(ticket)
        if failed:
            self._refuse(ticket, pieces, failed)
        if not ticket.usage:
            return pieces
        [pieces] = with_usage([pieces or [self._output.none()]], [ticket.usage])
        return pieces

    def _check(self, ticket: Ticket) -> None:
        """Raise why *ticket* failed as a whole, if it did; its rows that have used up their attempts get no more."""
        try:
            ticket.done.result()
        except RowsLostError:
            raise
        except Exception:
            self._note(ticket)
            raise

    def _note(self, ticket: Ticket) -> None:
        """Remember how many attempts rows of *ticket* have used up: they are in the next one, too."""
        for row, attempts in ticket.attempts.items():
            if hasattr(ticket.batch, "single"):
                single = ticket.batch.single(row)
                self._tried[_key(single)] = _Tried(single, attempts, ticket.failed.get(row))

    def _used_up(self, batch: Any) -> dict[int, Exception]:
        """Return the rows of *batch* that have no attempts left, by their index, each with its error."""
        if not self._tried:
            return {}
        tried = (self._tried.get(_key(batch.single(row))) for row in range(len(batch)))
        return {
            row: one.error
            for row, one in enumerate(tried)
            if one and one.error and one.attempts >= self._tries
        }

    def renew(self) -> None:
        self._tried.clear()
        self._made_again = None

    def forget(self, shards: Collection[int], *, committed: Collection[int]) -> None:  # noqa: ARG002
        tried = self._tried.items()
        self._tried = {k: one for k, one in tried if one.batch.pieces[0].shard.id not in shards}

    def _refuse(self, ticket: Ticket, pieces: Pieces, failed: dict[int, Exception]) -> None:
        """Raise the errors of the rows that *failed*; keep the output of the others."""
        batch, errors = ticket.batch, dict(sorted(failed.items()))
        if ticket.is_sample or not hasattr(batch, "without"):
            self._note(ticket)
            raise next(iter(errors.values()))
        others = batch.without(errors)
        # Rows of one origin may have gone into one output with those of others, which then has to be made anew.
        is_mixed = ticket.has_fanned_out and any(s.origins is None for s in ticket.outputs)
        if others is not None and not is_mixed:
            self._made_again = _MadeAgain(_key(others), others, pieces)
        raise RowsFailedError(errors, others is not None, ticket.usage)

    def _expected(self, batch: Any, types: InputTypes) -> InputTypes:
        """Return what the sink expects of rows of *batch* that have *types*."""
        given: InputTypes = batch.input_types
        expected = self._input_types(_Typed(types))
        return replace(expected, earlier=given.earlier, grow=True) if given.grow else expected

    def is_full(self, calls: int, nbytes: int, first: Answer | None) -> bool:  # noqa: ARG002
        """Wait until there is room for another batch, or *first* has its answer; return which it is."""
        if not isinstance(first, _TicketAnswer):
            return True
        return self._thread.is_done_before_room(first.ticket, most=self.ahead)

    def clocks(self) -> tuple[StageClock, ...]:
        """Return the clock of each stage."""
        return tuple(pool.clock() for pool in self._pools)

    def abandon(self) -> None:
        """Drop the batches whose answers are not read."""
        self._thread.abandon()

    def close(self) -> None:
        self._thread.close()
        for pool in self._pools:
            pool.close()


@dataclass(frozen=True, slots=True)
class _MadeAgain:
    """The output of the rows of a batch that did not fail, for when they are submitted again.

    Attributes:
        key: Says which rows these are.
        batch: They themselves: as long as they are kept, the key is only theirs.
        pieces: Their output.
    """

    key: tuple[Any, ...]
    batch: Batch
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class _Tried:
    """A row that has failed while it was not yet known what that means.

    Attributes:
        batch: The row, alone.
        attempts: How many attempts it has used up.
        error: What the last one raised; None if there are others left.
    """

    batch: Batch
    attempts: int
    error: Exception | None


def _key(batch: Any) -> tuple[Any, ...]:
    return tuple(piece.place for piece in batch.pieces)


@dataclass(frozen=True, slots=True)
class _Typed:
    """Stands for a batch whose types are asked for."""

    input_types: InputTypes


@dataclass(frozen=True, slots=True)
class _TicketAnswer:
    """The answer for a ticket."""

    ticket: Ticket
    read: Callable[[], list[Pieces]]

    def __call__(self) -> list[Pieces]:
        return self.read()


def _raise(error: Exception) -> Any:
    raise error


class _WaitsFor(Enum):
    """What the thread of the shards waits for."""

    ANSWER = auto()
    ROOM = auto()


class _StagingThread:
    """Runs a `Staging` in a thread; the others' requests and the ends of calls reach it as actions."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._actions: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._entered = self._seen = 0
        self._latest = 0.0
        self._waits_for: _WaitsFor | None = None
        self._has_room, self._most = True, 1
        self._unread: set[Ticket] = set()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="stages")
        self._thread.start()

    def do(self, action: Callable[[], None]) -> None:
        """Run *action* in the thread."""
        self._actions.put(action)

    def enter(self, ticket: Ticket, source: Kept) -> None:
        """Let *ticket* begin."""
        self._entered += 1
        self._unread.add(ticket)
        ticket.done.add_done_callback(self._notify)
        self.do(partial(self._enter, ticket, source))

    def _enter(self, ticket: Ticket, source: Kept) -> None:
        self._seen += 1
        self._latest = time.monotonic()
        self._staging.enter(ticket, source)

    def _notify(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, ticket: Ticket) -> None:
        """Wait until *ticket* is done."""
        self.do(partial(setattr, ticket, "is_wanted", True))
        self._wait(_WaitsFor.ANSWER, ticket.done.done)

    def is_done_before_room(self, ticket: Ticket, *, most: int) -> bool:
        """Wait until *ticket* is done, or another one may enter: then return False."""
        self.do(partial(setattr, ticket, "is_wanted", True))
        self._most = most

        def has_room() -> bool:
            return self._seen == self._entered and self._has_room

        self._wait(_WaitsFor.ROOM, lambda: ticket.done.done() or has_room())
        return ticket.done.done()

    def _wait(self, what: _WaitsFor, until: Callable[[], bool]) -> None:
        self._waits_for = what  # so that small batches do not wait for rows that do not come
        self.do(_nothing)
        try:
            with self._changed:
                self._changed.wait_for(lambda: until() or self._error is not None)
        finally:
            self._waits_for = None
        if self._error is not None and not until():
            raise self._error

    def read(self, ticket: Ticket) -> None:
        """Note that the output of *ticket* has been read."""
        self._unread.discard(ticket)
        self.do(partial(self._staging.release, tuple(ticket.outputs)))

    def abandon(self) -> None:
        """Drop all tickets."""
        tickets, self._unread = self._unread, set()
        self.do(partial(self._abandon, tickets))

    def _abandon(self, tickets: set[Ticket]) -> None:
        for ticket in tickets:
            if ticket.done.done():
                self._staging.release(ticket.outputs)
            else:
                self._staging.fail(ticket, RowsLostError("the batch was dropped"))

    def _run(self) -> None:
        try:
            while self._has_acted():
                is_late = time.monotonic() - self._latest >= _LINGER_SECONDS
                self._staging.advance(is_all=self._is_all, is_late=is_late)
                with self._changed:
                    self._has_room = self._is_room
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - raised where answers are read
            self._error = error
            self._notify(None)

    @property
    def _is_room(self) -> bool:
        return self._staging.has_room and len(self._unread) < self._most

    @property
    def _is_all(self) -> bool:
        """Whether no other tickets come for now."""
        if self._waits_for is _WaitsFor.ANSWER:
            return True
        return self._waits_for is _WaitsFor.ROOM and not self._is_room

    def _has_acted(self) -> bool:
        """Wait for actions and do them; return False at the end."""
        try:
            action = self._actions.get(timeout=_LINGER_SECONDS if self._staging.tickets else None)
        except queue.Empty:
            return True
        while action is not None:
            action()
            try:
                action = self._actions.get_nowait()
            except queue.Empty:
                return True
        return False

    def close(self) -> None:
        """End the thread."""
        self._actions.put(None)
        self._thread.join()


def _nothing() -> None:
    """Do nothing: the thread looks anew at what it may hand out."""
