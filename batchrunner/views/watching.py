"""Follows a run from its checkpoint alone, on any machine, with few requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import STALE_SECONDS, Lease, current_lease
from batchrunner.checkpoint.sentinel_index import sentinel_entries
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.progress import COMMITTED, PENDING, Display, Progress
from batchrunner.driver.session import StopReason
from batchrunner.errors import RunStoppedError, ShardFailedError
from batchrunner.views.look import (
    Look,
    RunState,
    events_of,
    look_at,
    progress_of,
    stored_fields,
)

_RUNNING = frozenset({RunState.RUNNING, RunState.ELSEWHERE})


class Watching:
    """Looks at a run again and again.

    The first look reads everything; so does the one after a session has ended or another has begun.
    Each other one lists the leases and the sentinels, and reads the lease and the event log: with
    10,000 shards, these are 13 requests to S3, however many shards were committed meanwhile.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checkpoint, self._clock = checkpoint, clock
        self._lease: Lease | None = None
        self._moved = clock()
        self._look = self._read()
        self._progress = self._base = progress_of(self._look)

    @property
    def look(self) -> Look:
        """The last look that read everything."""
        return self._look

    @property
    def progress(self) -> Progress:
        """How far the run was at the last look."""
        return self._progress

    @property
    def is_running(self) -> bool:
        """Whether a driver is alive, as far as this process can see.

        One on another machine is as long as it renews its lease.
        """
        is_silent = self._clock() - self._moved > STALE_SECONDS
        is_lost = self._look.state is RunState.ELSEWHERE and is_silent
        return self._look.state in _RUNNING and not is_lost

    def refresh(self) -> None:
        """Look again.

        Raises:
            ObjectNotFoundError: The run is gone.
            DamagedOutputError: Its record or its plan cannot be read.
            StorageError: The checkpoint cannot be reached.
        """
        lease, before = current_lease(self._checkpoint.storage), self._lease
        if lease != before:
            self._moved = self._clock()
        if lease and before and not lease.released and lease.owner == before.owner:
            self._lease = lease
            if not lease.owner.is_here() or lease.owner.is_alive():
                self._glance()
                return
        self._look = self._read()
        self._progress = self._base = progress_of(self._look)

    def _read(self) -> Look:
        self._checkpoint = self._checkpoint.reopened()
        look = look_at(self._checkpoint)
        self._lease = look.lease
        return look

    def _glance(self) -> None:
        """Take the figures from the event log, where the driver stores them with each renewal."""
        events = events_of(self._checkpoint, self._lease)
        stored = events[-1] if events else {}
        is_of_plan = self._base.shards and stored.get("shards") == self._base.shards
        if stored.get("action") != "progress" or not is_of_plan:
            # The driver has not stored any yet, or has just made the plan, or let it grow.
            self._look = self._read()
            self._progress = self._base = progress_of(self._look)
            return
        # How old they are is counted by the clock here: the one of the driver may be wrong.
        fields = _fields(stored, age=self._clock() - self._moved)
        self._progress = replace(self._base, **fields, states=self._states())

    def _states(self) -> bytes:
        committed = sentinel_entries(self._checkpoint.records)
        return bytes(
            COMMITTED if state == PENDING and shard in committed else state
            for shard, state in zip(self._base.ids, self._base.states, strict=True)
        )


def _fields(stored: Mapping[str, Any], *, age: float) -> dict[str, Any]:
    totals = {name: stored[name] for name in ("rows_in", "rows_out", "rows_failed", "bytes_out")}
    return {
        **stored_fields(stored, silent=age),
        "committed": stored["committed"],
        "totals": Totals(**totals),
        "weight_done": stored["weight_done"],
        "began": time.monotonic() - stored["seconds"] - age,
    }


def watch(
    watching: Watching, display: Display, *, seconds: float, pause: Callable[[float], None]
) -> int:
    """Show the run every so many *seconds* until no driver runs it; return how it ended, as a code.

    0: complete. 1: shards or too many rows failed, which `run` alone will not mend. 75: stopped with
    work left, or its driver died.
    """
    display.show(watching.progress)
    while watching.is_running:
        pause(seconds)
        watching.refresh()
        display.show(watching.progress)
    return exit_code(watching.look)


def exit_code(look: Look) -> int:
    """Return the exit code for a run that was looked at and that no driver runs."""
    if look.state is RunState.COMPLETE:
        return 0
    failed = look.state is RunState.FAILED or look.quarantined
    if failed or look.stopped in {StopReason.ROW_ERRORS, StopReason.NO_COST}:
        return ShardFailedError.exit_code
    return RunStoppedError.exit_code
