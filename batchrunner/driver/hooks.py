"""Calls the hooks of a session about what happens in it; nothing that a hook does reaches the run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.dead_letters import MAX_SHOWN_ROW, dead_letters_of, one_line
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.hook_thread import HookThread
from batchrunner.driver.opening import Opened
from batchrunner.driver.report import BatchReport
from batchrunner.driver.session import Session, Stop, StopReason
from batchrunner.driver.survey import Survey
from batchrunner.errors import LeaseHeldError, StorageError, describe
from batchrunner.hooks import DeadLetterKept, RunEnded, RunInfo, RunStarted, ShardCommitted
from batchrunner.hooks.contract import EndState
from batchrunner.hooks.registry import make_hook
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.spec.secrets import scrubbed
from batchrunner.worker.schema import SinkSchema

_LETTERS_OF_A_SHARD = 100
_HURRIED_SECONDS = 1.0
_POLL_SECONDS = 0.05


class HookCalls:
    """The calls of all hooks of one session.

    As a context it surrounds the session. When the block is over, the lease released and the event log
    durable, the hooks get the rest of `execution.grace_period` to return.
    """

    def __init__(self, hooks: Iterable[tuple[str, Any]], *, stop: Stop) -> None:
        """Prepare the calls of *hooks*, each with its name for warnings."""
        self._hooks, self._stop = tuple(hooks), stop
        self._threads: list[HookThread] = []
        self._began = time.monotonic()
        self._session: _HookedSession | None = None

    def begin(self, opened: Opened, survey: Survey, session: Session) -> None:
        """Call `on_run_start`, and from now on `on_shard_committed` for each shard of *session*."""
        if not self._hooks:
            return
        self._threads = [
            HookThread(name, hook, log_event=session.log_event) for name, hook in self._hooks
        ]
        self._session = _HookedSession(opened, survey, session)
        self._put("on_run_start", self._session.started(), drops=False)
        session.on_committed.append(self._committed)
        session.on_grown.append(self._session.grow)

    def end(self, report: BatchReport) -> None:
        """Call `on_run_end` about *report*."""
        if self._session is not None:
            state, error = _state_of(report)
            self._end(state, error, self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: object, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None and error is not None:
            is_stop = isinstance(error, KeyboardInterrupt | LeaseHeldError)
            state = EndState.STOPPED if is_stop else EndState.FAILED
            self._end(state, describe(error), self._session)
        self._leave()

    def _end(self, state: EndState, error: str, session: _HookedSession) -> None:
        self._session = None  # the run ends once, however its session does
        seconds = time.monotonic() - self._began
        event = partial(session.ended, state=state, error=scrubbed(error), seconds=seconds)
        for thread in self._threads:
            thread.put("on_run_end", lambda: (event(),), drops=False)

    def _committed(self, shard: Shard, sentinel: Sentinel) -> None:
        session = self._session
        if session is None:
            return
        session.committed[shard.id] = sentinel
        self._put("on_shard_committed", session.shard_committed(shard, sentinel))
        if sentinel.rows_failed:
            for thread in self._threads:
                thread.put("on_dead_letter", partial(session.dead_letters, sentinel))

    def _put(self, method: str, event: object, *, drops: bool = True) -> None:
        for thread in self._threads:
            thread.put(method, lambda: (event,), drops=drops)

    def _leave(self) -> None:
        """Wait for the hooks to return, for as long as the session may still take."""
        for thread in self._threads:
            thread.close()
        since = time.monotonic()
        waiting = self._threads
        while waiting and self._seconds_left(since) > 0:
            waiting = [thread for thread in waiting if not thread.wait(_POLL_SECONDS)]
        for thread in self._threads:
            thread.warn_of_end()

    def _seconds_left(self, since: float) -> float:
        grace, waited = self._stop.grace, time.monotonic() - since
        if self._stop.is_hurried:
            return _HURRIED_SECONDS - waited
        # A stop may come while the hooks are waited for: its clock counts from then on.
        rest = grace.hooks - self._stop.waited() if self._stop.reason else grace.seconds
        return min(rest, grace.seconds - waited)


class _HookedSession:
    """Makes the events of one session."""

    def __init__(self, opened: Opened, survey: Survey, session: Session) -> None:
        spec, checkpoint = opened.run.spec, opened.run.checkpoint
        self._shards: Sequence[Shard] = survey.plan.active
        self._spec, self._checkpoint = spec, checkpoint
        self._before, self._adopted = len(opened.committed), opened.adopted
        self.committed: dict[int, Sentinel] = dict(opened.committed)
        self.run = RunInfo(
            run_uid=opened.run_uid,
            session=session.id,
            name=spec.name,
            sources=tuple(map(scrubbed, spec.source.uris)),
            sink=scrubbed(opened.run.sink.uri),
            checkpoint=scrubbed(checkpoint.storage.uri),
            tags={key: scrubbed(tag) for key, tag in spec.tags.items()},
        )

    def grow(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    def started(self) -> RunStarted:
        return RunStarted(self.run, _now(), len(self._shards), self._before)

    def shard_committed(self, shard: Shard, sentinel: Sentinel) -> ShardCommitted:
        return ShardCommitted(
            run=self.run,
            at=_now(),
            shard=shard.id,
            source=scrubbed(shard.first.uri),
            files=len(shard.slices),
            part=sentinel.part,
            rows_in=sentinel.rows_in,
            rows_out=sentinel.rows_out,
            rows_failed=sentinel.rows_failed,
            bytes_out=sentinel.bytes,
            seconds=sentinel.seconds,
        )

    def dead_letters(self, sentinel: Sentinel) -> Iterator[DeadLetterKept]:
        """Yield the first dead letters of a committed shard. Reads the checkpoint."""
        now = _now()
        for stored in islice(dead_letters_of(self._checkpoint, sentinel), _LETTERS_OF_A_SHARD):
            yield DeadLetterKept(
                run=self.run,
                at=now,
                shard=sentinel.shard,
                source=scrubbed(stored["source"]),
                position=f"{stored['unit']} {stored['at']}",
                stage=stored["stage"],
                error=stored["error"],
                message=stored["message"],
                row=one_line(scrubbed(stored.get("raw", "")), most=MAX_SHOWN_ROW),
            )

    def ended(self, *, state: EndState, error: str, seconds: float) -> RunEnded:
        """Return the end of the session, with the totals of its report. Reads the checkpoint."""
        totals = Totals.of(self._shards, self.committed)
        return RunEnded(
            run=self.run,
            at=_now(),
            state=state,
            error=error,
            shards=len(self._shards),
            shards_committed=len(self.committed),
            shards_new=len(self.committed) - self._before,
            **asdict(totals),
            seconds=seconds,
            columns=self._columns(),
            shards_adopted=self._adopted,
        )

    def _columns(self) -> Mapping[str, str]:
        try:
            schema = SinkSchema(self._checkpoint, declared=self._spec.sink.schema_).agreed()
        except StorageError:
            return {}
        return {column.name: str(column.type) for column in schema or ()}


def hooks_of(spec: BatchSpec, handed_over: Iterable[Any]) -> list[tuple[str, Any]]:
    """Return the hooks that *spec* names, then those *handed_over* in Python, each with its name.

    Raises:
        CannotStartError: A hook cannot be imported or made, or not within `execution.grace_period`.
        InvalidSpecError: A hook takes no such options, or is none.
    """
    seconds = spec.execution.grace_period
    named = [
        (name, make_hook(name, options, seconds=seconds)) for name, options in spec.hooks.items()
    ]
    return [*named, *((type(hook).__name__, hook) for hook in handed_over)]


def _state_of(report: BatchReport) -> tuple[EndState, str]:
    if report.ok:
        return EndState.COMPLETE, ""
    if report.stopped not in {None, StopReason.ROW_ERRORS}:
        return EndState.STOPPED, f"stopped ({report.stopped})"
    if not report.within_budget:
        return EndState.FAILED, (
            f"too many rows failed: {report.rows_failed:,} of {report.rows_in:,}, where "
            f"{report.rows_allowed:,} may{': ' if report.row_error else ''}{report.row_error}"
        )
    reasons = {**report.quarantined, **{i: f.reason for i, f in report.failures.items()}}
    more = f"; and {len(reasons) - 1:,} more shards failed" if len(reasons) > 1 else ""
    missing = report.shards - report.shards_committed
    return EndState.FAILED, f"{next(iter(reasons.values()), f'{missing:,} shards were lost')}{more}"


def _now() -> str:
    return datetime.now(UTC).isoformat()
