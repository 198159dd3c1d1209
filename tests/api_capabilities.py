"""Capabilities that call `flaky_api.FlakyApi`, as users write them: the errors are the client's own."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.request
from json import dumps, loads

import aiohttp


class Squares:
    """Asks for the square of each row's id; one client for all calls."""

    def __init__(self, url):
        self.url, self.session = url, None

    async def __call__(self, row):
        if self.session is None:
            self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with self.session.post(self.url, json={"id": row["id"]}) as response:
            response.raise_for_status()
            return {"id": row["id"], **await response.json(content_type=None)}


def square(row, url):
    """As `Squares`, one row after the other."""
    request = urllib.request.Request(url, dumps({"id": row["id"]}).encode())  # noqa: S310 - of the test
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - of the test
        return {"id": row["id"], **loads(response.read())}


async def noted(row, path):
    """Note each call in a file."""
    await asyncio.sleep(0)
    with open(path, "a") as file:  # noqa: ASYNC230 - a test's
        file.write(f"{row['id']}\n")
    if row.get("bad"):
        raise ValueError(f"row {row['id']} is bad")
    return {"id": row["id"], "text": row.get("returned", "ok")}


def noted_in_turn(row, path):
    """As `noted`, one row after the other; changes its row before it fails."""
    with open(path, "a") as file:
        file.write(f"{row['id']}\n")
    text = row.pop("returned", "ok")
    if row.pop("bad", False):
        raise ValueError(f"row {row['id']} is bad")
    return {"id": row["id"], "text": text}


async def dies(row, path):
    """As `noted`; ends its process, or hangs, if the row says so."""
    await asyncio.sleep(0.01)
    return dies_in_turn(row, path)


def dies_in_turn(row, path):
    with open(path, "a") as file:
        file.write(f"{row['id']}\n")
    if row.get("how") == "exit":
        os._exit(3)
    if row.get("how") == "exit once" and not os.path.exists(f"{path}.ended"):
        open(f"{path}.ended", "x").close()
        time.sleep(1)  # what was answered before has been journaled
        os._exit(3)
    if row.get("how") == "memory":
        raise MemoryError(f"row {row['id']} is too large")
    while row.get("how") == "hang":
        time.sleep(60)
    return {"id": row["id"]}


class Refills:
    """Fills one dict again and again, and returns it."""

    def __init__(self, names):
        self.names, self.filled = names, {}

    def __call__(self, row):
        for name in self.names:
            self.filled[name] = made(name, row["id"])
        return self.filled


class RefillsInLists(Refills):
    """As `Refills`, in one list, which it clears each time."""

    def __init__(self, names):
        super().__init__(names)
        self.rows = []

    def __call__(self, row):
        self.rows.clear()
        self.rows.append(super().__call__(row))
        return self.rows


class Yields(Refills):
    """As `Refills`, yielded."""

    def __call__(self, row):
        yield super().__call__(row)


class RefillsLater(Refills):
    """As `Refills`, asynchronously."""

    async def __call__(self, row):
        await asyncio.sleep(0)
        return super().__call__(row)


class YieldsLater(Refills):
    """As `Yields`, asynchronously."""

    async def __call__(self, row):
        await asyncio.sleep(0)
        yield super().__call__(row)


def made(name, number):
    """Return the value of a column of row *number*, as the sink takes it."""
    texts = {"id": number, "path": f"{number:03}.txt", "__key__": f"{number:03}"}
    is_bytes = name in ("bytes", "txt")
    return texts.get(name, f"row {number}".encode() if is_bytes else f"row {number}")
