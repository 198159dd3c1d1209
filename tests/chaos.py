"""A job that is killed at random moments, again and again, until it is done.

The driver by SIGKILL (the next session goes on), a worker (Ray starts another), the raylet (the
whole local Ray goes down, the driver says so, the next session goes on).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from buckets import Bucket
from command import start
from patience import PATIENCE

DRIVER, WORKER, RAYLET = "driver", "worker", "raylet"


class LocalOutput:
    """The sink of a job on disk."""

    def __init__(self, folder: Path) -> None:
        self._out = folder / "out"

    def parts(self) -> dict[str, str]:
        """Hash of each part."""
        return {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in self._out.glob("part-*")
        }

    def committed(self) -> dict[str, Any]:
        """For each committed part, which object it is."""
        sentinels = self._out.glob("_checkpoint/sentinels/*.json")
        names = [json.loads(path.read_text())["part"] for path in sentinels]
        return {name: (self._out / name).stat().st_ino for name in names}


class BucketOutput:
    """The sink of a job in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def parts(self) -> dict[str, str]:
        found = self._bucket.listed("out/part-")
        return {key[4:]: hashlib.sha256(self._bucket.get(key)).hexdigest() for key in found}

    def committed(self) -> dict[str, Any]:
        """ETag and time of each committed part."""
        sentinels = self._bucket.listed("out/_checkpoint/sentinels/")
        stems = {Path(key).stem for key in sentinels}
        found = self._bucket.listed("out/part-")
        return {k[4:]: which for k, which in found.items() if k[4:].partition(".")[0] in stems}


@dataclass
class Story:
    """What happened to a job.

    Attributes:
        killed: How often each victim was hit.
        sessions: How many drivers it took.
        kept: How many committed parts the next session found, in all.
        touched: Committed parts that a later session changed: there must be none.
    """

    killed: dict[str, int] = field(default_factory=lambda: {DRIVER: 0, WORKER: 0, RAYLET: 0})
    sessions: int = 0
    kept: int = 0
    touched: set[str] = field(default_factory=set)


def survive(
    folder: Path, output: Any, victims: list[str], *, shards: int, seed: int, **environment: str
) -> Story:
    """Run the job in *folder*, of *shards*, to its end, killing all *victims* on the way.

    Each dies once a random number of further shards has been committed, and a random moment later.
    """
    dice, story = random.Random(seed), Story()
    waiting = list(victims)
    while True:
        before = output.committed()
        code = _session(folder, output, _Hunt(waiting, shards, dice, story), environment)
        after = output.committed()
        story.sessions += 1
        story.kept += len(before)
        story.touched |= {name for name in before if after.get(name) != before[name]}
        if code == 0:
            return story
        assert story.sessions < 10 * len(victims) + 10, "the job makes no progress"


@dataclass
class _Hunt:
    """Kills one victim after the other, as long as the driver lives."""

    waiting: list[str]
    shards: int
    dice: random.Random
    story: Story

    def go(self, process: Any, output: Any) -> None:
        while self.waiting and process.poll() is None:
            there = len(output.committed())
            most = max((self.shards - there) // (len(self.waiting) + 1), 0)
            aim = there + self.dice.randint(0, most)
            while process.poll() is None and len(output.committed()) < aim:
                time.sleep(0.05)
            time.sleep(self.dice.random() / 2)
            if process.poll() is None and _kill(self.waiting[0], process.pid):
                victim = self.waiting.pop(0)
                self.story.killed[victim] += 1
                if victim != WORKER:
                    return


def _session(folder: Path, output: Any, hunt: _Hunt, environment: dict[str, str]) -> int:
    before = hunt.story.killed[RAYLET]
    with start("run", "spec.yaml", cwd=folder, **environment) as process:
        hunt.go(process, output)
        _, stderr = process.communicate(timeout=PATIENCE)
    code = process.returncode
    # Ray may end its driver with 1 once its raylet is gone, at times before it has said that.
    usual = (0, 3, -signal.SIGKILL, *[1] * (hunt.story.killed[RAYLET] - before))
    assert code in usual, (code, stderr)
    assert "Traceback" not in stderr, stderr
    return code


def _kill(victim: str, driver: int) -> bool:
    """Kill one process of the kind, if there is one."""
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        chosen = _chosen(victim, psutil.Process(driver))
        chosen.send_signal(signal.SIGKILL)
        return True
    return False


def _chosen(victim: str, driver: psutil.Process) -> psutil.Process:
    if victim == DRIVER:
        return driver
    return random.choice(list(_below(driver, victim)))


def _below(driver: psutil.Process, victim: str) -> Iterator[psutil.Process]:
    for child in driver.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            name = " ".join(child.cmdline()[:1])
            if victim == RAYLET and name.endswith("/raylet"):
                yield child
            if victim == WORKER and name.startswith(
                ("ray::MapBatches", "ray::MapWorker", "ray::_")
            ):
                yield child
