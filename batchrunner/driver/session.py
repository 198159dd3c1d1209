"""One driver process's stretch of a run: its right to run, its reasons to stop, its event log."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

import orjson

from batchrunner.checkpoint import Checkpoint
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
from batchrunner.errors import LeaseHeldError, StorageError
from batchrunner.spec.secrets import scrubbed
from batchrunner.worker.stopping import Grace

_log = logging.getLogger(__name__)

HURRY_SECONDS = 5.0


class StopReason(StrEnum):
    """Why a session ends before its work does."""

    INTERRUPTED = "SIGINT"
    TERMINATED = "SIGTERM"
    MAX_RUNTIME = "max_runtime"
    ROW_ERRORS = "max_row_errors"
    LEASE_LOST = "lease lost"


FROM_OUTSIDE: Final = frozenset({StopReason.INTERRUPTED, StopReason.TERMINATED})
"""Reasons of those who want the process to be gone: nothing that has not begun is begun."""


class Stop:
    """A wish to stop, from a signal, a deadline or another driver. The first reason counts.

    Attributes:
        grace: How the time from the wish to the end is shared out.
        last_act: What to do before the process is ended by force: give back what it holds.
        max_runtime: Seconds after which it is wished for without a signal; None for never.
    """

    def __init__(self, *, max_runtime: float | None, grace: Grace | None = None) -> None:
        self.grace = grace or Grace()
        self.last_act: Callable[[], None] = lambda: None
        self.max_runtime = max_runtime
        self._deadline = None if max_runtime is None else time.monotonic() + max_runtime
        self._reason: StopReason | None = None
        self._since = 0.0
        self._hurried: float | None = None

    def request(self, reason: StopReason) -> None:
        """Ask for the stop. Safe in a signal handler."""
        if self._reason is None:
            self._reason, self._since = reason, time.monotonic()

    @property
    def reason(self) -> StopReason | None:
        """Why to stop; None as long as there is no reason."""
        if self._reason is None and self._deadline and time.monotonic() >= self._deadline:
            self.request(StopReason.MAX_RUNTIME)
        return self._reason

    def waited(self) -> float:
        """Return for how many seconds the stop has been wished for."""
        return time.monotonic() - self._since if self.reason else 0.0

    def hurry(self) -> None:
        """Ask to drop what is in flight. Safe in a signal handler."""
        if self._hurried is None:
            self._hurried = time.monotonic()

    @property
    def is_hurried(self) -> bool:
        """Tell whether what is in flight is to be dropped."""
        return self._hurried is not None

    @property
    def is_from_outside(self) -> bool:
        """Tell whether a signal wished for it."""
        return self.reason in FROM_OUTSIDE

    @property
    def is_patient(self) -> bool:
        """Tell whether what is in flight may still be waited for."""
        return not self.is_hurried and self.waited() <= self.grace.leave

    @property
    def is_overdue(self) -> bool:
        """Tell whether the process has had all the time that it may take to end."""
        hurried = self._hurried is not None and time.monotonic() - self._hurried > HURRY_SECONDS
        return bool(self.reason) and (hurried or self.waited() > self.grace.force)


class Session:
    """What a driver holds while it works.

    Attributes:
        id: Names it.
        epoch: Of its lease.
        stop: Whether to go on.
    """

    def __init__(self, checkpoint: Checkpoint, *, stop: Stop, id_: str, lease: Lease) -> None:
        self.id, self.epoch = id_, lease.epoch
        self.stop = stop
        self._checkpoint, self._lease = checkpoint, lease
        self._displaced: LeaseHeldError | None = None
        self._events: list[bytes] = []
        self._lock = threading.Lock()

    def check(self) -> None:
        """See that this driver is still the one that may run: one listing, at this very moment.

        Call it before everything that is not put-if-absent: a driver that was paused may have been
        displaced since it last looked. Once it has raised, it always raises.

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
        self._displaced = error
        self.log_event("lease_lost", to=str(error))
        self.stop.request(StopReason.LEASE_LOST)

    def renew(self) -> None:
        """Show that this driver is alive, and make its events durable.

        Raises:
            LeaseHeldError: Another driver took over.
        """
        try:
            self._lease = renew_lease(self._checkpoint.storage, self._lease)
        except LeaseHeldError as error:
            self._lose(error)
            raise
        self.save_events()

    def end(self) -> None:
        """Make the events durable and give the right to run back, if it is still this driver's."""
        lasts = [self.save_events]
        if self._displaced is None:
            lasts.append(partial(release_lease, self._checkpoint.storage, self._lease))
        for last in lasts:
            try:
                last()
            except StorageError as error:  # the next driver sees for itself that nobody runs
                _log.warning("%s", error)

    def log_event(self, action: str, **facts: Any) -> None:
        """Write an event down; it is durable soon, and when the session ends."""
        facts = {
            key: scrubbed(fact) if isinstance(fact, str) else fact for key, fact in facts.items()
        }
        event = {"at": datetime.now(UTC).isoformat(), "action": action, **facts}
        _log.info("%s", _line(action, facts), extra={"action": action, "session": self.id})
        with self._lock:
            self._events.append(orjson.dumps(event) + b"\n")

    def save_events(self) -> None:
        """Make the events so far durable."""
        with self._lock:
            event_log = b"".join(self._events)
        self._checkpoint.storage.put(f"sessions/{self.id}.jsonl", event_log)


def _line(action: str, facts: Mapping[str, Any]) -> str:
    """Return an event as people read it."""
    return " ".join([action, *(f"{name}={_word(value)}" for name, value in facts.items())])


def _word(value: Any) -> str:
    """Return *value* as one word: as it is, or as JSON where it has blanks or parts."""
    if isinstance(value, Mapping | list | tuple) or len(str(value).split()) != 1:
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


@contextmanager
def open_session(checkpoint: Checkpoint, *, stop: Stop) -> Iterator[Session]:
    """Acquire the lease, keep it renewed, and release it at the end.

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
    stop.last_act = session.end  # whatever hangs, the next driver must not wait for this one
    session.log_event(
        "session_started", epoch=lease.epoch, pid=lease.owner.pid, host=lease.owner.host
    )
    try:
        yield session
    finally:
        done.set()
        renewing.join()
        session.end()
        stop.last_act = lambda: None


def _warn_of_wait(checkpoint: str, lease: Lease) -> None:
    if lease.owner.is_known:
        _log.warning("%s holds the lease; waiting to see whether it is alive", lease)
        return
    _log.warning(
        "%s/%s is damaged and does not say who runs: waiting %.0f s to see whether somebody renews "
        "it; then this driver takes over",
        checkpoint,
        lease.key,
        STALE_SECONDS,
    )


def _keep_renewing(session: Session, done: threading.Event) -> None:
    while not done.wait(RENEW_SECONDS):
        try:
            session.renew()
        except LeaseHeldError:
            return
        except StorageError as error:  # it may pass; the lease only saves work
            _log.warning("the lease could not be renewed: %s", error)
