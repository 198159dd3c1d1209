"""What a checkpoint says about its run, and which line to paste next."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from batchrunner.checkpoint import Quarantine, RunRecord, Sentinel
from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease, release_lease
from batchrunner.driver.progress import Phase
from batchrunner.shard import Slicing
from batchrunner.testing.memory import MemoryStorage
from batchrunner.views.look import Look, RunState, progress_of
from batchrunner.views.status import next_command
from patience import PATIENCE
from shards import one_slice

NOW = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
RECORD = RunRecord("r", "test", "t", "me", "", {}, "f")
RUNNING = {
    "phase": "running",
    "rows_in": 20,
    "rows_in_flight": 7,
    "weight_done": 200,
    "weight_in_flight": 70,
    "workers": 3,
    "workers_busy": 2,
    "slowest_shard": 3,
    "slowest_seconds": 600.0,
    "seconds_left": 100,
    "running_seconds": 50,
}


def a_shard(number, *, weight=100):
    return one_slice(number, "/in", Slicing.BYTES, 0, weight, weight, "x", weight=weight)


def a_sentinel(number, *, session="", rows_failed=0):
    return Sentinel("r", number, "p", 10, 10 - rows_failed, rows_failed, 1, "s", "w", session, 2.0)


def a_lease(kind):
    """A lease whose driver runs, has died, has released it, or runs on another machine."""
    storage, owner = MemoryStorage(uuid.uuid4().hex), LeaseOwner.this_process(uuid.uuid4().hex)
    lease = acquire_lease(storage, owner)
    if kind != "alive":
        release_lease(storage, lease)  # and so its owner, this process, counts as dead
    if kind == "elsewhere":
        return type(lease)(1, LeaseOwner("s", "another-host", "boot", 7, "1"))
    return type(lease)(1, owner, released=kind == "released")


def a_look(*, shards=4, committed=(0, 1), lease="alive", events=(), **changes):
    held = a_lease(lease)
    facts = {
        "record": RECORD,
        "shards": [a_shard(number) for number in range(shards)],
        "committed": {n: a_sentinel(n, session=held.owner.session) for n in committed},
        "quarantined": {},
        "damaged": {},
        "lease": held,
        "events": [{"at": NOW - timedelta(seconds=60), "action": "session_started"}, *events],
        "now": NOW,
    }
    return Look(**{**facts, **changes})


def stored(*, age=5, **changes):
    """The last line of the event log of a session that runs, or that died."""
    facts = {**RUNNING, **changes}
    return {"at": NOW - timedelta(seconds=age), "action": "progress", **facts}


def ended(**changes):
    return {"at": NOW, "action": "session_ended", "complete": False, **changes}


def test_what_is_in_flight_is_as_old_as_the_last_renewal():
    """What has been committed since then is not counted twice."""
    look = a_look(committed=(0, 1), events=[stored()])
    later = a_look(committed=(0, 1, 2), events=[stored()])

    assert (look.progress["rows_in_flight"], look.progress["seconds_left"]) == (7, 95)
    assert later.progress["rows_in_flight"] == 0


@pytest.mark.parametrize(
    ("lease", "state"), [("dead", RunState.INTERRUPTED), ("elsewhere", RunState.ELSEWHERE)]
)
def test_a_driver_that_is_silent_shows_since_when(lease, state):
    """A person decides by it whether it is dead."""
    look = a_look(lease=lease, events=[stored(age=720)])

    assert (look.state, look.silent_seconds) == (state, 720)
    assert look.last_renewal == NOW - timedelta(seconds=720)


def test_a_dead_driver_has_nothing_in_flight():
    """Its rows will be made again."""
    look = a_look(lease="dead", events=[stored()])

    assert look.progress == {}
    assert (progress_of(look).workers, progress_of(look).phase) == (0, Phase.FINISHING)


def test_a_session_that_is_over_has_no_last_renewal():
    """It has released its lease."""
    assert a_look(lease="released", events=[ended()]).last_renewal is None


@pytest.mark.parametrize(
    ("seconds", "weight", "is_stuck"),
    [(600.0, 100, True), (59.0, 100, False), (600.0, 4000, False)],
)
def test_a_shard_that_hangs_is_pointed_out(seconds, weight, is_stuck):
    """If it takes over a minute, and ten times as long as others of its size."""
    shards = [*(a_shard(number) for number in range(3)), a_shard(3, weight=weight)]
    look = a_look(shards=4, events=[stored(slowest_seconds=seconds)])
    look = replace(look, shards=shards)

    assert bool(look.stuck) == is_stuck
    assert not is_stuck or look.stuck == "shard 3 has run for 600 s; of its size, others took 2.0 s"


QUARANTINE = {n: Quarantine("r", n, "why", 3, "s") for n in (2, 3)}
ALL = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("look", "command"),
    [
        (a_look(events=[stored(slowest_seconds=1.0)]), "batchrunner status --watch job"),
        (a_look(events=[stored()]), "batchrunner logs job"),
        (a_look(lease="dead", events=[stored()]), "batchrunner run spec.yaml"),
        (a_look(lease="elsewhere", events=[stored()]), "batchrunner run spec.yaml"),
        (a_look(lease="released", events=[ended()]), "batchrunner run spec.yaml"),
        (
            a_look(lease="released", events=[ended()], quarantined=QUARANTINE),
            "batchrunner errors job",
        ),
        (
            a_look(lease="released", events=[ended(stopped="max_row_errors")]),
            "batchrunner errors job",
        ),
        (
            a_look(shards=5, lease="released", events=[ended()], quarantined=QUARANTINE),
            "batchrunner run spec.yaml",
        ),
        (
            a_look(committed=ALL, lease="released", events=[ended(complete=True)]),
            "batchrunner verify spec.yaml",
        ),
        (a_look(committed=ALL, lease="released", events=[ended()]), "batchrunner errors job"),
        (a_look(damaged={1: "torn"}), "batchrunner verify --repair spec.yaml"),
    ],
)
def test_each_state_has_a_command_to_paste(look, command):
    """Read by a tired person at three in the morning."""
    assert next_command(look, place="job", spec="spec.yaml") == command


def test_a_complete_run_with_failed_rows_shows_them_next():
    """They are not in the output."""
    failed = {n: a_sentinel(n, rows_failed=1) for n in ALL}
    look = a_look(lease="released", events=[ended(complete=True)])
    look = replace(look, committed=failed)

    assert look.state is RunState.COMPLETE
    assert next_command(look, place="job", spec="SPEC") == "batchrunner errors job"


def test_the_progress_of_a_run_elsewhere_says_what_was_done_before_its_session():
    """A live view on another machine shows the same as the one of the run."""
    look = a_look(lease="elsewhere", events=[stored()])
    held = look.lease.owner.session
    committed = {0: a_sentinel(0, session="earlier"), 1: a_sentinel(1, session=held)}
    look = replace(look, committed=committed, quarantined={3: QUARANTINE[3]})
    progress = progress_of(look)

    assert (progress.states, progress.resumed, progress.weight_before) == (b"=#.x", 1, 100)
    assert (progress.workers_busy, progress.slowest, progress.rows_in_flight) == (2, (3, 605.0), 7)
    assert 60 <= progress.seconds < 60 + PATIENCE
