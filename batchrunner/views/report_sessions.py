"""The sessions of a run, in their order: what each did, how it ended, and what had changed before it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from batchrunner.checkpoint import RunRecord, Sentinel
from batchrunner.checkpoint.lease import Lease
from batchrunner.spec.fingerprint import differences
from batchrunner.views.event_logs import (
    Event,
    end_in,
    failure_in,
    is_clean,
    is_housekeeping,
    is_readable,
)
from batchrunner.views.report_reading import RunFacts

_UNKNOWN_EPOCH = 1 << 60


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """One session of a run.

    Attributes:
        number: Its place in the run, from 1.
        id: Its id.
        kind: run, clean or repair.
        driver: Host and process id of the driver; empty if unknown.
        began: When it began, by its driver's clock, in seconds since 1970 UTC; None if unknown.
        ended: When it ended, or gave its last sign of life; None if unknown.
        end: How it ended, for people; "running" if it has not.
        is_cut: Whether it was killed, so that its end is its last sign of life.
        committed: How many shards it committed that still count.
        rows_in, rows_out, rows_failed: Rows of these shards.
        changes: What differs from the session before: spec, code, source files and packages.
    """

    number: int
    id: str
    kind: str
    driver: str
    began: float | None
    ended: float | None
    end: str
    is_cut: bool
    committed: int = 0
    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    changes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it ran; None if unknown."""
        return None if self.began is None or self.ended is None else self.ended - self.began


def sessions_of(documents: RunFacts, *, state: str) -> tuple[SessionFacts, ...]:
    """Return the sessions of the run, the first one first. *state* is that of the whole run."""
    of_run = _of_run(documents)
    in_order = sorted(of_run, key=lambda one: _epoch(one, documents))
    facts = [_facts(one, documents, number=n, state=state) for n, one in enumerate(in_order, 1)]
    return tuple(_with_changes(facts, documents))


def _of_run(documents: RunFacts) -> set[str]:
    """Return the sessions of the current run: leases and event logs are shared by all of a checkpoint."""
    committed = {sentinel.session for sentinel in documents.sentinels.values()}
    owners = {id_ for id_, lease in documents.leases.items() if lease.owner.is_known}
    known = {*documents.events, *owners, *committed}
    if not documents.asked:
        return known
    created = _seconds(documents.asked[0].created_at)
    if created is None:
        return known
    # The session that began the run started before it; one that had ended by then is of a run before.
    spoke = {one for one in known if (_last_sign(documents.events.get(one, ())) or 0.0) >= created}
    return committed | spoke | _silent(documents, committed | spoke)


def _silent(documents: RunFacts, others: Collection[str]) -> set[str]:
    """Return the sessions that died before they saved an event, and claimed no epoch before *others* did."""
    epochs = [documents.leases[one].epoch for one in others if one in documents.leases]
    since = min(epochs, default=documents.lease.epoch if documents.lease else 0)
    silent = (
        lease
        for one, lease in documents.leases.items()
        if lease.owner.is_known and not documents.events.get(one)
    )
    return {lease.owner.session for lease in silent if lease.epoch >= since}


def _epoch(session: str, documents: RunFacts) -> tuple[int, float]:
    events, lease = documents.events.get(session, ()), documents.leases.get(session)
    epoch = lease.epoch if lease else next((e["epoch"] for e in events if "epoch" in e), None)
    return (_UNKNOWN_EPOCH if epoch is None else int(epoch)), _began(events) or 0.0


def _began(events: Sequence[Event]) -> float | None:
    return events[0]["at"].timestamp() if events else None


def _last_sign(events: Sequence[Event]) -> float | None:
    return events[-1]["at"].timestamp() if events else None


def _facts(session: str, documents: RunFacts, *, number: int, state: str) -> SessionFacts:
    events, lease = documents.events.get(session, ()), documents.leases.get(session)
    own = [s for s in documents.sentinels.values() if s.session == session]
    is_last = session == documents.session
    end, is_cut = _end(events, lease, state=state if is_last else "")
    signs = [_last_sign(events), *(s.began + s.seconds for s in own if s.began)]
    began = [_began(events), *(s.began for s in own if s.began)]
    ended = max((sign for sign in signs if sign is not None), default=None)
    first = min((sign for sign in began if sign is not None), default=None)
    facts = SessionFacts(
        number, session, _kind(events), _driver(events, lease), first, ended, end, is_cut
    )
    return _with_rows(facts, own)


def _with_rows(facts: SessionFacts, own: Sequence[Sentinel]) -> SessionFacts:
    return replace(
        facts,
        committed=len(own),
        rows_in=sum(s.rows_in for s in own),
        rows_out=sum(s.rows_out for s in own),
        rows_failed=sum(s.rows_failed for s in own),
    )


def _driver(events: Sequence[Event], lease: Lease | None) -> str:
    if lease and lease.owner.is_known:
        return f"{lease.owner.host}, process {lease.owner.pid}"
    started = next((e for e in events if e.get("action") == "session_started"), {})
    return (
        f"{started['host']}, process {started['pid']}" if {"host", "pid"} <= started.keys() else ""
    )


def _kind(events: Sequence[Event]) -> str:
    if not is_housekeeping(events):
        return "run"
    return "clean" if is_clean(events) else "repair"


def _end(events: Sequence[Event], lease: Lease | None, *, state: str) -> tuple[str, bool]:
    """Return how a session ended, and whether it was killed; *state* is the run's, in its last session."""
    if ended := end_in(events):
        return _end_of(ended), False
    if failed := failure_in(events):
        return f"failed (exit code {failed.get('exit_code')}): {failed.get('why')}", False
    if state.startswith("running"):
        return state, False
    if not is_readable(events) and not (lease and not lease.released):
        return "unknown: its event log is gone", False
    if lease is not None and lease.released:
        return ("done" if _kind(events) != "run" else "ended by an error, or by force"), False
    return "killed", True


def _end_of(event: Event) -> str:
    if event.get("complete"):
        return "complete"
    failed = int(event.get("failed") or 0)
    words = [f"stopped: {event['stopped']}"] if event.get("stopped") else []
    words += [f"{failed:,} shards failed"] if failed else []
    return ", ".join(words) or "ended, not complete"


def _with_changes(facts: Iterable[SessionFacts], documents: RunFacts) -> list[SessionFacts]:
    records = list(documents.asked)
    versions: Mapping[str, str] = {}
    result: list[SessionFacts] = []
    for number, one in enumerate(facts):
        found = _versions(documents.events.get(one.id, ()))
        changes = _of_packages(versions, found) if number else []
        changes = [*_of_files(documents.events.get(one.id, ())), *changes]
        # A change is recorded just after its session began, and before the next one does.
        while len(records) > 1 and _is_by(records[1], one):
            changes = [*_of_spec(records[0], records[1]), *changes]
            records.pop(0)
        versions = {**versions, **found}
        result.append(replace(one, changes=tuple(changes)))
    return result


def _of_spec(old: RunRecord, new: RunRecord) -> list[str]:
    decisive = differences(old.decisive, new.decisive)
    if decisive or old.spec == new.spec:
        return decisive
    return ["the text of the spec, in nothing that decides the output"]


def _of_files(events: Sequence[Event]) -> list[str]:
    made = (event.get("changed") for event in events if event.get("action") == "plan_made")
    return [str(line) for line in made if line]


def _is_by(change: RunRecord, session: SessionFacts) -> bool:
    at = _seconds(change.created_at)
    return session.ended is not None and at is not None and at <= session.ended


def _seconds(text: str) -> float | None:
    """Return a time in seconds since 1970 UTC; None for text that is no time."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _versions(events: Sequence[Event]) -> dict[str, str]:
    found: Any = next(
        (e.get("versions") for e in events if e.get("action") == "packages_found"), {}
    )
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def _of_packages(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [f"{name} {old[name]} -> {v}" for name, v in new.items() if old.get(name, v) != v]
