"""Writers, compactors and readers in processes of their own, killed at any time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from batchrunner.analytics import open_store
from batchrunner.analytics.catalog import newest_catalog
from batchrunner.testing.analytics_contract import times_seen
from command import ENVIRONMENT
from patience import PATIENCE

ACTOR = Path(__file__).parents[1] / "store_actor.py"


@contextmanager
def an_actor(store, act, **arguments):
    """A process that does *act*; killed at the end of the block if it is alive then."""
    config = store.config
    order = {"uri": config.uri, "storage_options": config.storage_options, "act": act, **arguments}
    with subprocess.Popen([sys.executable, ACTOR, json.dumps(order)], env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def runs_in(store):
    """The runs that are there, each of them once and whole."""
    if "score" not in store.list_tables():
        return set()
    seen = times_seen(store)
    assert set(seen.values()) <= {1}
    return set(seen)


def wait_until(true, what):
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.sweep
def test_of_eight_writers_of_which_half_are_killed_every_run_is_there_once(tmp_path):
    """Half of their fifty runs are the same; who is killed is started again.

    All of them compact in the background, and are killed at that too.
    """
    store = open_store(tmp_path / "store")
    shared = [f"shared-{n}" for n in range(25)]
    each = [[*shared, *(f"own-{w}-{n}" for n in range(25))] for w in range(8)]
    for names in each:
        random.Random(names[-1]).shuffle(names)

    with ExitStack() as running:
        writers = [running.enter_context(an_actor(store, "write", names=names)) for names in each]
        for number, writer in enumerate(writers[:4], start=1):
            wait_until(lambda: len(runs_in(store)) >= 10 * number, "no progress")  # noqa: B023 - called at once
            writer.kill()
        again = [running.enter_context(an_actor(store, "write", names=names)) for names in each[:4]]
        assert [writer.wait(PATIENCE) for writer in (*writers[4:], *again)] == [0] * 8

    assert runs_in(store) == {name for names in each for name in names}
    assert newest_catalog(store._storage).number > 0, "nothing was compacted"
    store.compact()
    assert len(runs_in(store)) == 225


def watch(store, *, seconds):
    """Read for some seconds while two write and two compact, one of each killed now and then."""
    dice, before, reads = random.Random(0), set(), 0
    with ExitStack() as running:
        running.enter_context(an_actor(store, "write_on", name="steady"))
        running.enter_context(an_actor(store, "compact_on"))
        wait_until(lambda: runs_in(store), "nothing was written")
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end or reads <= 5 or len(before) <= 20:
            turn += 1
            mortal = {"write_on": {"name": f"mortal-{turn}"}, "compact_on": {}}
            with ExitStack() as turns:
                for act, arguments in mortal.items():
                    turns.enter_context(an_actor(store, act, **arguments))
                until = time.monotonic() + dice.uniform(1, 3)
                while time.monotonic() < until:
                    now = runs_in(store)
                    assert now >= before, f"lost: {sorted(before - now)[:5]}"
                    before, reads = now, reads + 1
    assert runs_in(store) >= before
    return len(before), reads


def test_a_reader_never_sees_fewer_runs_than_before(tmp_path):
    """Nor one of them twice, while others write, compact and die."""
    written, reads = watch(open_store(tmp_path / "store"), seconds=5)

    assert written > 20
    assert reads > 5


@pytest.mark.soak
def test_a_reader_never_sees_fewer_runs_than_before_for_a_minute(tmp_path):
    """The same, for longer."""
    written, reads = watch(open_store(tmp_path / "store"), seconds=60)

    assert written > 200
    assert reads > 50


@pytest.mark.soak
@pytest.mark.s3
def test_a_reader_never_sees_fewer_runs_than_before_in_a_bucket(seaweedfs, prefix):
    """The same, for a minute, in a bucket."""
    uri = f"s3://{seaweedfs.bucket}/{prefix}"
    written, reads = watch(open_store(uri, storage_options=seaweedfs.storage_options), seconds=60)

    assert written > 100
    assert reads > 10
