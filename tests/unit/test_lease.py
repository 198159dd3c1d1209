"""The right of one driver to run: one has it, every other one sees which, and none waits for the dead."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint import lease as lease_module
from batchrunner.checkpoint.lease import (
    Lease,
    LeaseOwner,
    acquire_lease,
    current_lease,
    release_lease,
    renew_lease,
)
from batchrunner.driver.session import Stop, open_session
from batchrunner.errors import DamagedOutputError, LeaseHeldError, StorageError
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.testing.faulty import FaultKind, Faults, FaultyStorage
from batchrunner.testing.memory import MemoryStorage

CLAIM = """
import sys
from batchrunner.checkpoint.lease import LeaseOwner, acquire_lease
from batchrunner.errors import LeaseHeldError
from batchrunner.storage.disk.storage import LocalStorage

storage, owner = LocalStorage(sys.argv[1]), LeaseOwner.this_process(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    print(acquire_lease(storage, owner).epoch, flush=True)
except LeaseHeldError:
    print("refused", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["memory", "disk"])
def storage(request, tmp_path):
    if request.param == "memory":
        return MemoryStorage(f"{uuid.uuid4().hex}/checkpoint")
    return LocalStorage(str(tmp_path / "checkpoint"))


@pytest.fixture
def impatient(monkeypatch):
    """A counter that stands still for a third of a second has no owner."""
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 0.3)
    monkeypatch.setattr(lease_module, "RENEW_SECONDS", 0.05)


def me(session="s"):
    return LeaseOwner.this_process(session)


def a_driver_elsewhere(storage, *, epoch=1):
    """Let a driver on another machine hold the lease."""
    owner = LeaseOwner("t", "other-host", "other-boot", 1, "7")
    held = Lease(epoch, owner)
    storage.put(held.key, held.to_bytes())
    return held


def refused(storage, **kwargs):
    with pytest.raises(LeaseHeldError) as refusal:
        acquire_lease(storage, me("late"), **kwargs)
    return str(refusal.value)


def test_the_first_driver_gets_the_first_epoch(storage):
    """And everyone can see who it is."""
    assert current_lease(storage) is None

    mine = acquire_lease(storage, me())

    assert current_lease(storage) == mine == Lease(1, me())


def test_the_driver_that_runs_is_named(storage):
    """So that a person can go there and look."""
    acquire_lease(storage, me())

    message = refused(storage)

    assert f"process {os.getpid()} on {me().host} (epoch 1)" in message
    assert [entry.key for entry in storage.list("lease")] == ["lease/00000001.json"]


def test_a_released_lease_is_free(storage):
    """Also when its owner lives on: a notebook runs one batch after the other."""
    release_lease(storage, acquire_lease(storage, me("a")))

    second = acquire_lease(storage, me("b"))

    assert (second.epoch, second.owner.session) == (2, "b")


def test_to_release_touches_no_newer_epoch(storage):
    """A driver that was taken over ends without harm."""
    first = acquire_lease(storage, me("a"))
    release_lease(storage, first)
    second = acquire_lease(storage, me("b"))

    release_lease(storage, first)

    assert current_lease(storage) == second


def test_renewing_counts_and_keeps_the_rest(storage):
    """The counter is all that others look at."""
    mine = acquire_lease(storage, me())

    again = renew_lease(storage, renew_lease(storage, mine))

    assert again == dataclasses.replace(mine, counter=2) == current_lease(storage)


def test_renewing_notices_a_newer_epoch(storage):
    """Then this driver must stop: it was taken for dead, and another one runs."""
    mine = acquire_lease(storage, me("a"))
    newer = a_driver_elsewhere(storage, epoch=2)

    with pytest.raises(LeaseHeldError, match=r"on other-host \(epoch 2\)"):
        renew_lease(storage, mine)

    assert current_lease(storage) == newer


def test_the_tenth_epoch_is_newer_than_the_ninth(storage):
    """Keys are sorted as text."""
    for n in range(1, 13):
        mine = acquire_lease(storage, me(str(n)))
        assert mine.epoch == n
        release_lease(storage, mine)


@pytest.fixture
def claimants(tmp_path):
    """Start processes that claim the lease of one checkpoint when a line comes."""
    started = []

    def start(name):
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(tmp_path / "checkpoint"), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process


def heard(process):
    return process.stdout.readline().strip()


def test_a_driver_that_was_killed_here_is_taken_over_at_once(tmp_path, claimants):
    """The same line again, right after a kill -9, must go on."""
    process = claimants("victim")
    assert (heard(process), heard(go(process))) == ("ready", "1")
    disk = LocalStorage(str(tmp_path / "checkpoint"))
    assert f"process {process.pid} on" in refused(disk)

    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but not waited for yet

    assert acquire_lease(disk, me(), waiting=pytest.fail).epoch == 2


def test_a_process_that_got_the_number_of_a_dead_one_is_not_its_owner(storage):
    """Numbers come round again; the time of the start does not."""
    late = dataclasses.replace(me(), started="1")
    storage.put(Lease(1, late).key, Lease(1, late).to_bytes())

    assert acquire_lease(storage, me(), waiting=pytest.fail).epoch == 2


def test_of_many_threads_one_gets_the_lease(storage):
    """They see the same last epoch and try for the same next one."""
    gate = threading.Barrier(12)

    def claim(n):
        gate.wait()
        try:
            return acquire_lease(storage, me(str(n)))
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(12) as pool:
        won = [found for found in pool.map(claim, range(12)) if found]

    assert won == [current_lease(storage)]


def test_a_claim_is_a_living_driver_s_as_soon_as_it_can_be_seen(storage, monkeypatch):
    """Another thread may look before the one that claims has its answer."""
    real, refused = storage.put_if_absent, []

    def seen_at_once(objects):
        won = real(objects)
        monkeypatch.setattr(storage, "put_if_absent", real)
        with pytest.raises(LeaseHeldError) as caught:
            acquire_lease(storage, me("other"))
        refused.append(caught)
        return won

    monkeypatch.setattr(storage, "put_if_absent", seen_at_once)

    assert acquire_lease(storage, me("first")) == current_lease(storage)
    assert refused


def test_of_many_processes_one_gets_the_lease(tmp_path, claimants):
    """On a disk, without any lock but the link itself."""
    processes = [claimants(str(n)) for n in range(4)]
    assert [heard(process) for process in processes] == ["ready"] * 4

    for process in processes:
        go(process)

    assert sorted(heard(process) for process in processes) == ["1"] + ["refused"] * 3


@pytest.mark.usefixtures("impatient")
def test_a_driver_elsewhere_is_taken_over_when_its_counter_stands_still(storage):
    """Its machine is gone, and with it everyone who could say so."""
    held = a_driver_elsewhere(storage)
    reported = []

    mine = acquire_lease(storage, me(), waiting=reported.append)

    assert (mine.epoch, reported) == (2, [held])


def test_a_driver_elsewhere_that_renews_is_respected(storage, impatient, monkeypatch):
    """It works on, and says so: then there is no need to wait any longer."""
    monkeypatch.setattr(lease_module, "STALE_SECONDS", 60)
    held, done = a_driver_elsewhere(storage), threading.Event()

    def renew():
        lease = held
        while not done.wait(0.02):
            lease = renew_lease(storage, lease)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        message = refused(storage)
    finally:
        done.set()
        thread.join()

    assert "on other-host (epoch 1)" in message


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_waits_goes_on_when_the_lease_is_released(storage):
    """No need to wait until it would be stale."""
    held = a_driver_elsewhere(storage)

    mine = acquire_lease(storage, me(), waiting=lambda lease: release_lease(storage, lease))

    assert held.epoch + 1 == mine.epoch


@pytest.mark.usefixtures("impatient")
def test_a_driver_that_waits_is_refused_when_another_one_takes_over(storage):
    """And by whom."""
    a_driver_elsewhere(storage)

    message = refused(storage, waiting=lambda _: a_driver_elsewhere(storage, epoch=2))

    assert "(epoch 2)" in message


def test_a_lease_of_another_container_on_this_host_is_elsewhere(storage, impatient):
    """Process numbers mean nothing across containers."""
    other = dataclasses.replace(me(), boot="another namespace")
    storage.put(Lease(1, other).key, Lease(1, other).to_bytes())
    waited = []

    acquire_lease(storage, me(), waiting=waited.append)

    assert len(waited) == 1


def test_a_lease_comes_back_as_it_was_stored():
    """Every field of it."""
    lease = Lease(3, LeaseOwner("s", "h", "b", 4, "5"), counter=6, released=True)

    assert Lease.from_bytes(lease.to_bytes()) == lease


@pytest.mark.parametrize("foreign", [b"[]", b"null", b"7", b'{"owner": []}', b'{"a": 1}', b"\xff"])
def test_a_damaged_lease_is_called_so(foreign):
    """No driver may take it for a lease."""
    whole = Lease(1, me()).to_bytes()
    for data in [foreign, *(whole[:length] for length in range(len(whole)))]:
        with pytest.raises(DamagedOutputError, match="lease is damaged"):
            Lease.from_bytes(data)


def torn(storage, *, epoch=1):
    """Let the disk tear the lease of a driver that runs here."""
    whole = Lease(epoch, me()).to_bytes()
    storage.put(f"lease/{epoch:08d}.json", whole[: len(whole) // 2])


@pytest.mark.usefixtures("impatient")
def test_a_damaged_lease_that_stands_still_is_taken_over(storage):
    """It refused every driver, and every other command, for ever."""
    torn(storage, epoch=7)
    waited = []

    mine = acquire_lease(storage, me("late"), waiting=waited.append)

    assert mine.epoch == 8
    assert [str(one) for one in waited] == [
        "an unknown driver (epoch 7; lease/00000007.json is damaged)"
    ]


@pytest.mark.usefixtures("impatient")
def test_a_damaged_lease_that_its_owner_renews_is_held(storage):
    """Its owner lives, whatever happened to its file: its next renewal puts a whole one there."""
    mine = acquire_lease(storage, me("owner"))
    torn(storage)

    def renew(_):
        renew_lease(storage, mine)

    assert f"process {os.getpid()} on" in refused(storage, waiting=renew)


def test_what_is_no_lease_hides_none(storage):
    """An editor leaves a copy beside the file, a file system a trace of its own."""
    mine = acquire_lease(storage, me())
    storage.put("lease/00000001.json~", b"")
    storage.put("lease/intents.txt", b"")

    assert current_lease(storage) == mine


def test_a_claim_whose_answer_was_lost_does_not_lock_its_own_process_out():
    """A notebook that tries again is no other driver."""
    storage = MemoryStorage("lost-claim")
    faults = Faults(at=2, kind=FaultKind.LOST)
    with pytest.raises(StorageError, match="injected"):
        acquire_lease(FaultyStorage(storage, faults), LeaseOwner.this_process("first"))
    assert faults.calls[-1] == "put_if_absent"
    assert current_lease(storage) is not None

    assert acquire_lease(storage, LeaseOwner.this_process("second")).epoch == 2


def test_a_release_that_failed_does_not_lock_its_own_process_out():
    """The store was down at the end of a session, and the process goes on."""
    storage = MemoryStorage("lost-release")
    lease = acquire_lease(storage, LeaseOwner.this_process("first"))
    with pytest.raises(StorageError, match="injected"):
        release_lease(FaultyStorage(storage, Faults(at=1)), lease)

    assert acquire_lease(storage, LeaseOwner.this_process("second")).epoch == 2


@pytest.mark.parametrize("snapshot", [lambda: {"a": object()}, lambda: 1 / 0])
def test_progress_that_cannot_be_stored_costs_no_renewal(storage, snapshot):
    """It is for the eyes: a lease that is not renewed would be taken over from a driver that works."""
    with open_session(Checkpoint(storage), stop=Stop(max_runtime=None)) as session:
        session.snapshot = snapshot
        session.renew()

        assert current_lease(storage).counter == 1
        last = storage.get(f"sessions/{session.id}.jsonl").splitlines()[-1]
        assert json.loads(last)["action"] == "progress"
