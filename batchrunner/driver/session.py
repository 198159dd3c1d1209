"""A session: one driver process of a run, with its lease, its reason to stop and its event log."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.lease import (
    RENEW_SECONDS,
    STALE_SECONDS,
    Lease,
    LeaseOwner,
    acquire_lease,
    check_lease,
    release_lease,
    renew_lease,
)
from batchrunner.errors import LeaseHeldError, StorageError, describe
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.spec.secrets import scrubbed
from batchrunner.worker.stopping import Grace

_log = logging.getLogger(__name__)

HURRY_SECONDS = 5.0
"""How long the process may take to end after a second signal."""


class StopReason(StrEnum):
    """Why a session ends before its work is done."""

    INTERRUPTED = "SIGINT"
    TERMINATED = "SIGTERM"
    MAX_RUNTIME = "max_runtime"
    ROW_ERRORS = "max_row_errors"
    MAX_COST = "max_cost"
    NO_COST = "no cost reported"
    LEASE_LOST = "lease lost"


FROM_OUTSIDE: Final = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})
"""Signals, whose sender wants the process to end: no further shard is begun."""


class Stop:
    """A request to stop, by a signal, a deadline, too many failed rows or another driver.

    The first reason counts.

    Attributes:
        grace: Divides the time from the request to the end of the process.
        last_act: Called to release the lease before the process is ended by force.
        max_runtime: Seconds after which the session stops without a signal; None for never.
    """

    def __init__(self, *, max_runtime: float | None, grace: Grace | None = None) -> None:
        self.grace = grace or Grace()
        self.last_act: Callable[[], None] = lambda: None
        self.max_runtime = max_runtime
        self._deadline = None if max_runtime is None else time.monotonic() + max_runtime
        self._reason: StopReason | None = None
        self._since = 0.0
        self._hurried: float | None = None

    @classmethod
    def of(cls, spec: BatchSpec) -> Stop:
        """Return a stop with the `max_runtime` and the `grace_period` of *spec*."""
        execution = spec.execution
        return cls(max_runtime=execution.max_runtime, grace=Grace(execution.grace_period))

    def request(self, reason: StopReason) -> None:
        """Request the stop. Safe in a signal handler."""
        if self._reason is None:
            self._reason, self._since = reason, time.monotonic()

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None as long as there is no reason."""
        if self._reason is None and self._deadline and time.monotonic() >= self._deadline:
            self.request(StopReason.MAX_RUNTIME)
        return self._reason

    def waited(self) -> float:
        """Return the seconds since the stop was requested; 0.0 if it was not."""
        return time.monotonic() - self._since if self.reason else 0.0

    def hurry(self) -> None:
        """Request to drop the shards in flight, after a second signal. Safe in a signal handler."""
        if self._hurried is None:
            self._hurried = time.monotonic()

    @property
    def is_hurried(self) -> bool:
        """Whether to drop the shards in flight."""
        return self._hurried is not None

    @property
    def is_from_outside(self) -> bool:
        """Whether a signal requested the stop."""
        return self.reason in FROM_OUTSIDE

    @property
    def ends_shards(self) -> bool:
        """Whether shards in flight end early, so that they make as few calls more as can be."""
        return self.reason in {StopReason.MAX_COST, StopReason.NO_COST}

    @property
    def is_patient(self) -> bool:
        """Whether there is time left to wait for the shards in flight."""
        return not self.is_hurried and self.waited() <= self.grace.leave

    @property
    def is_overdue(self) -> bool:
        """Whether the process has used up the time that it may take to end."""
        hurried = self._hurried is not None and time.monotonic() - self._hurried > HURRY_SECONDS
        return bool(self.reason) and (hurried or self.waited() > self.grace.force)


class Session:
    """One driver process of a run, which holds the lease.

    Attributes:
        id: Identifies the session.
        epoch: The fencing number of its lease.
        stop: The stop, which a signal, a deadline or the session itself requests.
        snapshot: Returns how far the session is, as plain values; called in another thread, at each
            renewal.
        on_committed: Called, one after the other, with each shard that this session commits and its
            sentinel, which is durable; must neither wait nor raise.
        on_grown: Called with the shards of the plan each time that it has grown; must neither wait nor
            raise.
    """

    def __init__(self, checkpoint: Checkpoint, *, stop: Stop, id_: str, lease: Lease) -> None:
        self.id, self.epoch = id_, lease.epoch
        self.stop = stop
        self.snapshot: Callable[[], Mapping[str, Any]] = dict
        self.on_committed: list[Callable[[Shard, Sentinel], None]] = []
        self.on_grown: list[Callable[[Sequence[Shard]], None]] = []
        self._checkpoint, self._lease = checkpoint, lease
        self._displaced: LeaseHeldError | None = None
        self._events: list[bytes] = []
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that this driver still holds the lease, with one listing.

        Call it before each write that is not put-if-absent: while this driver was paused, another
        one may have taken over. Once it has raised, it always raises.

        Raises:
            LeaseHeldError: Another driver took over.
        """
        if self._displaced is None:
            try:
                check_lease(self._checkpoint.storage, self._lease)
            except LeaseHeldError as error:
                self._lose(error)
        if self._displaced is not None:
            raise self._displaced

    def _lose(self, error: LeaseHeldError) -> None:
        self._displaced = error  # for good: several drivers may have held the lease since
        self.log_event("lease_lost", to=str(error))
        self.stop.request(StopReason.LEASE_LOST)

    def renew(self) -> None:
        """Renew the lease, which shows that this driver is alive, and make the event log durable.

        Raises:
            LeaseHeldError: Another driver took over.
        """
        try:
            self._lease = renew_lease(self._checkpoint.storage, self._lease)
        except LeaseHeldError as error:
            self._lose(error)
            raise
        self.save_events(is_last=False)

    def end(self) -> None:
        """Make the event log durable, then release the lease if this driver still holds it."""
        # Events first: a `status` that sees the lease released takes the event log for complete.
        steps = [self.save_events]
        if self._displaced is None:
            steps.append(partial(release_lease, self._checkpoint.storage, self._lease))
        for step in steps:
            try:
                step()
            except StorageError as error:  # the next driver waits until the lease is stale
                _log.warning("%s", error)

    def log_event(self, action: str, **facts: Any) -> None:
        """Append an event to the event log: durable at the next renewal or the session's end."""
        facts = {
            key: scrubbed(fact) if isinstance(fact, str) else fact for key, fact in facts.items()
        }
        event = {"at": datetime.now(UTC).isoformat(), "action": action, **facts}
        _log.info("%s", _line(action, facts), extra={"action": action, "session": self.id})
        with self._lock:
            self._events.append(orjson.dumps(event) + b"\n")

    def save_events(self, *, is_last: bool = True) -> None:
        """Make the event log, as it is now, durable; unless *is_last*, with a `progress` event at its end."""
        progress = b"" if is_last else self._progress()
        with self._lock:
            event_log = b"".join([*self._events, progress])
        # The whole log each time: S3 cannot append, and an interrupted put leaves the old one.
        self._checkpoint.storage.put(f"sessions/{self.id}.jsonl", event_log)

    def _progress(self) -> bytes:
        """Return how far the session is as one more line, which the next save replaces."""
        event = {"at": datetime.now(UTC).isoformat(), "action": "progress"}
        try:
            return orjson.dumps({**event, **self.snapshot()}) + b"\n"
        except Exception as error:  # noqa: BLE001 - the lease must be renewed, whatever is displayed
            _log.debug("no progress to store: %r", error)
            return orjson.dumps(event) + b"\n"


def _line(action: str, facts: Mapping[str, Any]) -> str:
    """Return an event as one line of text."""
    return " ".join([action, *(f"{name}={_word(value)}" for name, value in facts.items())])


def _word(value: Any) -> str:
    """Return *value* as text; as JSON if that has blanks or the value is a mapping or list."""
    if isinstance(value, Mapping | list | tuple) or len(str(value).split()) != 1:
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


@contextmanager
def open_session(
    checkpoint: Checkpoint, *, stop: Stop, started_with: Mapping[str, str] | None = None
) -> Iterator[Session]:
    """Acquire the lease, keep it renewed, and release it at the end.

    *started_with* is for people: its first event has it, and nothing depends on it.

    Raises:
        LeaseHeldError: Another driver runs.
        StorageError: The checkpoint cannot be written.
    """
    id_ = uuid.uuid4().hex
    waiting = partial(_warn_of_wait, checkpoint.storage.uri)
    lease = acquire_lease(checkpoint.storage, LeaseOwner.this_process(id_), waiting=waiting)
    session = Session(checkpoint, stop=stop, id_=id_, lease=lease)
    done = threading.Event()
    renewing = threading.Thread(
        target=_keep_renewing, args=(session, done), daemon=True, name="lease"
    )
    renewing.start()
    # If the process is ended by force, the next driver must not wait until the lease is stale.
    stop.last_act = session.end
    session.log_event(
        "session_started",
        epoch=lease.epoch,
        pid=lease.owner.pid,
        host=lease.owner.host,
        **(started_with or {}),
    )
    try:
        yield session
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        session.log_event("session_failed", exit_code=code, why=describe(error))
        raise
    finally:
        done.set()
        renewing.join()  # before the release: a later renewal would acquire the lease again
        session.end()
        stop.last_act = lambda: None


def _warn_of_wait(checkpoint: str, lease: Lease) -> None:
    if lease.owner.is_known:
        _log.warning(
            "%s holds the lease; waiting to see whether it is alive: if not, this driver takes over",
            lease,
        )
        return
    _log.warning(
        "%s/%s is damaged and does not name its driver: waiting %.0f s to see whether one renews "
        "it; if none does, this driver takes over",
        checkpoint,
        lease.key,
        STALE_SECONDS,
    )


def _keep_renewing(session: Session, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            session.renew()
        except LeaseHeldError:  # `renew` has requested the stop
            return
        except StorageError as error:  # the next one may go through; the lease only saves work
            _log.warning(
                "the lease could not be renewed, trying again in %.0f s: %s", RENEW_SECONDS, error
            )
