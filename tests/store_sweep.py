"""Dies at every change that a write or a compaction makes, looks, goes on, and prints what is wrong.

A program of its own, for it forks: `python store_sweep.py JSON`, see `sweep`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import pandas as pd  # noqa: F401 - before the forks, each of which would import it for pyarrow
import pyarrow.dataset
import pyarrow.parquet  # noqa: F401 - likewise

import mutants
import store_mutants
from batchrunner.analytics import background_compaction, open_store
from batchrunner.errors import BatchRunnerError, describe
from batchrunner.testing.analytics_contract import some_runs
from batchrunner.testing.crash import Death, Disk
from forks import in_child

S3_CHANGES = ("put_object", "delete_objects", "complete_multipart_upload")
BEFORE, NEW = 5, 20


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to do and how to die.

    Attributes:
        root: Folder or URI below which each death has a store of its own.
        act: `write`, `compact` or `compact_in_background`.
        death: One of `Death`; of S3 `before` and `after`.
        mutant: Which of `store_mutants` to apply.
        storage_options: Of the stores.
    """

    root: str
    act: str
    death: str
    mutant: str = ""
    storage_options: dict = field(default_factory=dict)


def sweep(what: Sweep) -> list[str]:
    """Run the sweep in a process of its own and return its findings; none is good."""
    command = [sys.executable, __file__, json.dumps(asdict(what))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    deaths, *findings = done.stdout.splitlines()
    assert what.mutant or int(deaths) >= 6, "too few deaths to prove anything"
    return findings


def main(what: Sweep) -> None:
    if what.root.startswith("s3://"):
        import aiobotocore.session  # noqa: F401 - before the forks
        import s3fs  # noqa: F401 - likewise
    changes = answer_of(lambda: whole(what)).split()
    deaths, findings = 0, []
    for die_at, change in enumerate(changes, start=1):
        if what.death == Death.TORN and change != "fsync":
            continue  # the same as dying before it
        place = f"{what.root}/{die_at}"
        in_child(lambda: prepare(what, place))  # noqa: B023 - called at once
        deaths += in_child(lambda: act(what, place, die_at=die_at))  # noqa: B023 - called at once
        finding = answer_of(lambda: faults(what, place))  # noqa: B023 - called at once
        findings += [f"change {die_at}: {finding}"] if finding else []
        if findings and what.mutant:
            break
    sys.stdout.write("\n".join([str(deaths), *findings]))


def answer_of(work: Callable[[], object]) -> str:
    """Do *work* in a fork and return what that returns, as text."""
    reading, writing = os.pipe()
    in_child(lambda: os.write(writing, str(work()).encode()))
    os.close(writing)
    with os.fdopen(reading) as report:
        return report.read()


def whole(what: Sweep) -> str:
    """Do it all without dying; return the names of the changes."""
    place = f"{what.root}/whole"
    in_child(lambda: prepare(what, place))
    return " ".join(act(what, place))


def faults(what: Sweep, place: str) -> str:
    """What is wrong after a death, at once and later."""
    mutants.no_fsync()
    for check in CHECKS:
        try:
            check(what, place)
        except (AssertionError, BatchRunnerError) as error:
            return f"{check.__name__}: {describe(error)}"
    return ""


def store_at(what: Sweep, place: str):
    return open_store(place, storage_options=what.storage_options)


def prepare(what: Sweep, place: str) -> None:
    """Five runs, two of them compacted, and what the compaction replaced still there."""
    mutants.no_fsync()  # no death here, and it takes most of the time
    store = store_at(what, place)
    store.write(some_runs(2))
    store.compact()
    store.write(some_runs(BEFORE))


def act(what: Sweep, place: str, *, die_at: int = 0) -> list[str]:
    """Write or compact; return the names of the changes."""
    store_mutants.apply(what.mutant)
    with dying(what, die_at) as changes:
        if what.act == "compact":
            store_at(what, place).compact()
        elif what.act == "compact_in_background":  # as a writer does, from 2 files on
            background_compaction.COMPACTION_TRIGGER = 2
            store_at(what, place)._background.compact_if_needed()
        else:
            store = store_at(what, place)
            receipt = store.write_with_receipt(some_runs(NEW))  # one set, some of it known
            assert len(receipt.refs) == NEW
            store.write(some_runs(2, first=NEW))  # files of their own
    return changes


@contextmanager
def dying(what: Sweep, die_at: int):
    if what.root.startswith("s3://"):
        yield dying_at_request(die_at, what.death)
        return
    disk = Disk(die_at=die_at, death=Death(what.death), seed=die_at)
    with disk.watched():
        yield disk.changes


def dying_at_request(die_at: int, moment: str) -> list[str]:
    from batchrunner.storage.s3 import calls as s3_calls

    real, changes = s3_calls._call, []

    async def call(fs, method, **parameters):
        changes.extend([method] * (method in S3_CHANGES))
        fatal = method in S3_CHANGES and len(changes) == die_at
        if fatal and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return await real(fs, method, **parameters)
        finally:  # a refusal is an answer too
            if fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    s3_calls._call = call
    return changes


def seen(store) -> dict[str, int]:
    """How many rows each run has, of 3 in `runs` and 2 in `score`."""
    rows = [
        *store.read_table("runs").column("run_uid").to_pylist(),
        *store.read_table("score").column("run_uid").to_pylist(),
    ]
    return {uid: rows.count(uid) for uid in set(rows)}


def nothing_is_lost_or_doubled(what: Sweep, place: str) -> None:
    found = seen(store_at(what, place))
    assert set(found.values()) == {5}, found
    assert set(found) >= {f"run-{n}" for n in range(BEFORE)}, found


def every_ref_resolves(what: Sweep, place: str) -> None:
    store = store_at(what, place)
    for number in range(BEFORE):
        assert len(store.read_run(store.get_run_uri(f"run-{number}")).records["score"]) == 2


def the_same_again_finishes_it(what: Sweep, place: str) -> None:
    act(Sweep(what.root, what.act, what.death, "", what.storage_options), place)
    count = NEW + 2 if what.act == "write" else BEFORE
    assert seen(store_at(what, place)) == {f"run-{n}": 5 for n in range(count)}


def compactions_leave_nothing_behind(what: Sweep, place: str) -> None:
    store = store_at(what, place)
    before = seen(store)
    store.compact()
    store.compact(clear=True)
    assert seen(store) == before
    files = [entry.key for entry in store._storage.list(recursive=True)]
    tables = [key for key in files if not key.startswith("_")]
    assert len(tables) == 2, tables
    assert not what.root.startswith("/") or not os.listdir(f"{place}/.staging")


CHECKS = (
    nothing_is_lost_or_doubled,
    every_ref_resolves,
    the_same_again_finishes_it,
    compactions_leave_nothing_behind,
)


if __name__ == "__main__":
    main(Sweep(**json.loads(sys.argv[1])))
