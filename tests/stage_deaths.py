"""Stages whose workers die: each says where, in the rows that it is called with."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

FIRST_DIES, MODEL_DIES, LAST_DIES, OWNER_DIES, DEADLY = 30, 75, 130, 160, 101


def _die_once(rows, at, folder):
    """Kill this process at row *at*, the first time that a process gets there."""
    if any(row["id"] == at for row in rows) and _is_first(folder, at):
        os.kill(os.getpid(), signal.SIGKILL)


def _is_first(folder, at):
    try:
        Path(folder, f"died-{at}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def widen(row, folder):
    _die_once([row], FIRST_DIES, folder)
    return {**row, "wide": [row["id"]] * 20}


class Model:
    def __init__(self, folder, seconds=0.0):
        self.folder, self.seconds = folder, seconds
        self.loaded_by = os.getpid()

    def __call__(self, batch):
        time.sleep(self.seconds)
        rows = [{"id": n} for n in batch["id"].tolist()]
        _die_once(rows, MODEL_DIES, self.folder)
        if any(row["id"] == DEADLY for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        assert self.loaded_by == os.getpid()
        batch["sum"] = batch["wide"].sum(axis=1) if batch["wide"].ndim == 2 else _sums(batch)
        return batch


def _sums(batch):
    import numpy as np

    return np.array([sum(wide) for wide in batch["wide"]])


def narrow(table, folder):
    rows = table.to_pylist()
    print(f"narrowed {len(rows)} rows")  # noqa: T201 - what is kept with the run
    _die_once(rows, LAST_DIES, folder)
    if any(row["id"] == OWNER_DIES for row in rows) and _is_first(folder, OWNER_DIES):
        os.kill(owner(), signal.SIGKILL)
    return table.select(["id", "sum"])


def owner():
    """The worker of the shards: the process of the same Ray that runs `GroupActor`."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, parent = (path / "cmdline").read_text(), (path / "stat").read_text()
        except OSError:
            continue
        if "GroupActor" in command and int(parent.rpartition(")")[2].split()[1]) == os.getppid():
            return int(path.name)
    raise AssertionError("no process runs GroupActor")


def made(row):
    """What becomes of a row of the source."""
    return {"id": row["id"], "sum": 20 * row["id"]}


class Flies:
    """Says how many of its calls were in flight; the first waits for a second one."""

    def __init__(self):
        self.flying, self.has_met = 0, asyncio.Event()

    async def __call__(self, rows):
        self.flying += 1
        seen = self.flying
        if seen > 1:
            self.has_met.set()
        await self.has_met.wait()
        self.flying -= 1
        return [{**row, "flying": seen} for row in rows]


def signs(rows):
    return [{**row, "by": os.getpid()} for row in rows]


class CannotBeBuilt:
    def __init__(self):
        raise FileNotFoundError("weights.bin is not there")

    def __call__(self, rows):
        return rows


class DiesBuilding(CannotBeBuilt):
    def __init__(self):
        os._exit(7)
