"""The clock of a stage: nothing is lost, nothing counted twice, and sums are those of the workers."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from batchrunner.worker.cpu_time import CpuTime, process_cpu_time
from batchrunner.worker.stage_clock import (
    Doing,
    SharedMeter,
    StageClock,
    StageKind,
    StageMeter,
    summed,
)


class _Time:
    """A clock that stands until the test lets time pass."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def passes(self, seconds):
        self.now += seconds


def test_what_a_worker_does_adds_up_to_its_time():
    """A moment that is counted twice, or not at all, makes every share wrong."""
    time = _Time()
    meter = StageMeter("prepare", doing=Doing.LOADING, clock=time)
    time.passes(4)
    meter.turn_to(Doing.WAITING_INPUT)
    time.passes(2)
    with meter.at(Doing.CALLING):
        time.passes(10)
        with meter.at(Doing.WAITING_OUTPUT):
            time.passes(3)
        time.passes(1)
        meter.count(rows=64, cpu=CpuTime(0.5, 2.0))
    time.passes(0.5)  # not over yet
    clock = meter.clock()

    assert (clock.loading, clock.waiting_input, clock.calling) == (4, 2.5, 11)
    assert (clock.waiting_output, clock.rows, clock.calls, clock.cpu) == (3, 64, 1, 0.5)
    assert clock.cpu_wait == 2.0
    assert clock.seconds == time.now
    assert clock.peak_memory > 1 << 20


def test_a_worker_without_work_has_no_time():
    """Between two groups of shards it waits for nothing that anything else could do faster."""
    time = _Time()
    meter = StageMeter("prepare", clock=time)
    time.passes(100)
    with meter.at(Doing.CALLING):
        time.passes(1)
    time.passes(100)

    assert meter.clock().seconds == 1


def test_an_error_in_the_capability_ends_its_time():
    """After it, the worker waits: it is not in the capability for ever."""
    time = _Time()
    meter = StageMeter("prepare", doing=Doing.WAITING_INPUT, clock=time)

    def fail():
        time.passes(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), meter.at(Doing.CALLING):
        fail()
    time.passes(2)

    assert (meter.clock().calling, meter.clock().waiting_input) == (1, 2)


def test_the_cpu_time_of_calls_is_that_of_the_process_meanwhile():
    """Not that of other moments, also where the clock is read in the middle of a call."""
    cpu = _Time()
    meter = StageMeter(
        "prepare", doing=Doing.WAITING_INPUT, cpu=lambda: CpuTime(cpu.now, 3 * cpu.now)
    )
    assert meter.clock().cpu is None
    cpu.now = 5.0
    with meter.at(Doing.CALLING):
        cpu.now = 7.0
        assert meter.clock().cpu == 2.0
        cpu.now = 8.0
    cpu.now = 100.0
    with meter.at(Doing.CALLING):
        cpu.now = 101.0

    assert (meter.clock().cpu, meter.clock().cpu_wait) == (4.0, 12.0)


def test_calls_at_the_same_time_are_one_call_long():
    """Two threads that compute in turns take one CPU, and the worker has one time."""
    cpu = _Time()
    meter = SharedMeter("prepare", cpu=lambda: CpuTime(cpu.now))
    with meter.call(3):
        cpu.now = 1.0
        with meter.call(4):
            cpu.now = 3.0
        cpu.now = 4.0

    clock = meter.clock()
    assert (clock.cpu, clock.rows, clock.calls) == (4.0, 7, 2)


def test_the_cpu_time_of_a_process_is_what_the_system_counts_for_it():
    """No wait for a CPU is in it: those who find four times the time of their process believe no figure."""
    before, began = process_cpu_time(), time.process_time()
    until = time.thread_time() + 0.3
    while time.thread_time() < until:
        pass
    spent = process_cpu_time().since(before)
    assert 0.29 < spent.used <= time.process_time() - began + 0.01


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the system does not count it"
)
def test_what_is_ready_without_a_cpu_waits_for_one():
    """Beside another process on the only CPU it computes for half of the time, and waits for nothing else."""
    code = (
        "import os, threading, time\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "if os.fork() == 0:\n"
        "    until = time.monotonic() + 20\n"
        "    parent = os.getppid()\n"
        "    while time.monotonic() < until and os.getppid() == parent: pass\n"
        "    os._exit(0)\n"
        "from batchrunner.worker.cpu_time import process_cpu_time, thread_cpu_time\n"
        "before, mine, until = process_cpu_time(), thread_cpu_time(), time.thread_time() + 0.5\n"
        "while time.thread_time() < until: pass\n"
        "time.sleep(0.3)\n"
        "print(*process_cpu_time().since(before), *thread_cpu_time().since(mine))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, waited, of_thread, thread_waited = map(float, done.stdout.split())
    assert 0.49 < of_thread < 1.0
    assert 0.49 < used < 1.0
    assert 0.1 < thread_waited
    assert 0.1 < waited


def test_a_clock_is_read_while_it_runs():
    """Heartbeats read it in another thread: the sum never goes back, and never misses a moment."""
    meter = StageMeter("prepare", doing=Doing.WAITING_INPUT)
    done, seen = threading.Event(), []

    def work():
        for _ in range(3000):
            with meter.at(Doing.CALLING):
                meter.count(rows=1)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        seen.append(meter.clock())
    thread.join()

    sums = [clock.seconds for clock in seen]
    assert sums == sorted(sums)
    assert meter.clock().rows == meter.clock().calls == 3000


def test_stages_are_summed_by_name_and_kind():
    """A capability may be called `read`: it is not the reading."""
    clocks = [
        StageClock("read", StageKind.READ, calling=1, cpu=0.5),
        StageClock("read", calling=10, waiting_input=5, rows=7, calls=2, peak_memory=300),
        StageClock("read", StageKind.READ, calling=2, waiting_output=4, limited=1),
        StageClock("read", calling=20, loading=1, rows=3, calls=1, cpu=2.0, peak_memory=200),
    ]

    assert summed(clocks) == (
        StageClock("read", StageKind.READ, 2, calling=3, waiting_output=4, limited=1, cpu=0.5),
        StageClock(
            *("read", StageKind.STAGE, 2, 1, 5, 30), rows=10, calls=3, cpu=2.0, peak_memory=300
        ),
    )


def test_a_clock_survives_being_stored():
    """Event logs keep it; a later version may have fields that this one does not know."""
    clock = StageClock("prepare", workers=3, calling=1.5, cpu=None, rows=9, peak_memory=1 << 33)

    assert StageClock.from_dict({**clock.to_dict(), "new": 1}) == clock
    assert StageClock.from_dict({"name": "prepare", "kind": "stage"}) == StageClock("prepare")
    sound = {"name": "a", "kind": "stage"}
    wrong = ({"calling": "1"}, {"cpu": []}, {"peak_memory": None}, {"name": 1}, {"kind": "b"})
    for damaged in [{}, 1, "x", None, *({**sound, **one} for one in wrong)]:
        with pytest.raises((KeyError, TypeError, ValueError)):
            StageClock.from_dict(damaged)
