"""Reads the event logs of sessions, for `status` and `report` alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from batchrunner.checkpoint.lease import Lease
from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Storage

Event = Mapping[str, Any]

_CLEAN = frozenset({"clean_began", "cleaned"})
_REPAIR = frozenset({"repair_began", "shard_taken_back", "record_put_aside", "record_made_again"})
_WITHDRAWN = "output_withdrawn"
"""Action of the repair that took `_SUCCESS` away: from then on the run is not complete."""
_TORN = "log_torn"
"""Action of an event that stands for those that cannot be read."""
_NUMBERS = frozenset(
    {
        *(
            "committed",
            "failed",
            "rows_in",
            "rows_out",
            "rows_failed",
            "bytes_out",
            "rows_in_flight",
        ),
        *("epoch", "shard", "slowest_shard", "rows_allowed", "workers", "workers_busy"),
        *("weight_done", "weight_in_flight", "seconds", "seconds_left", "running_seconds"),
        "slowest_seconds",
    }
)
"""Fields that are reckoned with."""
_LARGEST = 1 << 63


def event_log(storage: Storage, session: str) -> tuple[Event, ...]:
    """Return the events of *session*, with `at` as a time; empty if missing or damaged from the start.

    In place of the first damaged one and those after it there is one `log_torn`.

    Raises:
        StorageError: The log cannot be read.
    """
    try:
        data = storage.get(f"sessions/{session}.jsonl")
    except ObjectNotFoundError:
        return ()
    return tuple(_events_in(data))


def _events_in(data: bytes) -> Iterator[Event]:
    at = None
    for line in data.splitlines():
        event = _event(line)
        if event is None:
            if at is not None:
                yield {"at": at, "action": _TORN}
            return
        at = event["at"]
        yield event


def _event(line: bytes) -> Event | None:
    try:
        event = orjson.loads(line)
        at = datetime.fromisoformat(event["at"])
        is_sound = isinstance(event["action"], str) and at.timestamp() > 0 and at.tzinfo
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return {**event, "at": at} if is_sound and all(map(_is_sound, event.items())) else None


def _is_sound(item: tuple[str, object]) -> bool:
    name, value = item
    if value is None or name not in _NUMBERS:
        return True
    return isinstance(value, int | float) and abs(value) < _LARGEST


def last_log(
    lease: Lease | None,
    log: Callable[[str], tuple[Event, ...]],
    *,
    before: Callable[[Lease], Lease | None],
) -> tuple[Event, ...]:
    """Return the log of the last session that could run shards; empty if that one cannot be read.

    Args:
        lease: The lease of the latest epoch.
        log: Returns the log of a session.
        before: Returns the lease of the epoch before.
    """
    # A `clean` or `verify --repair` after it has a session, too, and does not say how the run ended. A log
    # that is gone is no reason to go further back: an earlier session did not end the run.
    events = log(lease.owner.session) if lease else ()
    while lease and _leaves_the_end(events) and (earlier := before(lease)):
        lease, events = earlier, log(earlier.owner.session)
    return events


def _leaves_the_end(events: Sequence[Event]) -> bool:
    """Return whether the session of *events* left the run as ended as it was."""
    is_withdrawn = any(event["action"] == _WITHDRAWN for event in events)
    return is_housekeeping(events) and not is_withdrawn


def is_housekeeping(events: Sequence[Event]) -> bool:
    """Return whether *events* are of a `clean` or a `verify --repair`, which run no shard."""
    actions = {event["action"] for event in events}
    return bool(actions & (_CLEAN | _REPAIR)) and "plan_made" not in actions


def is_clean(events: Sequence[Event]) -> bool:
    """Return whether *events* are of a `clean`."""
    return is_housekeeping(events) and any(event["action"] in _CLEAN for event in events)


def end_in(events: Sequence[Event]) -> Event:
    """Return the event that says how the session ended; empty if none does."""
    # It need not be the last one: a hook may fail after it.
    return next((e for e in reversed(events) if e["action"] == "session_ended"), {})


def failure_in(events: Sequence[Event]) -> Event:
    """Return the event that says which error ended the session; empty if none does."""
    return next((e for e in reversed(events) if e["action"] == "session_failed"), {})


def is_readable(events: Sequence[Event]) -> bool:
    """Return whether *events* are there, up to the last one that was saved."""
    return bool(events) and events[-1]["action"] != _TORN
