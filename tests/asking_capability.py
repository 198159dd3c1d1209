"""Asks the server of `counting_server.py`, and says what it used."""

from __future__ import annotations

import asyncio
import json
import os
import time

from counting_server import usage


class RefusedError(Exception):
    """The server asked to come again later."""

    def __init__(self, status, retry_after):
        super().__init__(f"HTTP {status}")
        self.status_code, self.retry_after = status, retry_after


async def ask(row, *, url):
    """Return the answer for *row*."""
    host, port = url.split(":")
    sent = time.time()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(
            f"GET /{row['id']} HTTP/1.1\r\nSent: {sent}\r\nPid: {os.getpid()}\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if (status := int(head.split()[1])) != 200:
            raise RefusedError(status, 0.1)
        return json.loads(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()


class SlowToLoad:
    """Does the same; takes its time to load."""

    def __init__(self, seconds):
        time.sleep(seconds)

    async def __call__(self, row, *, url):
        return await ask(row, url=url)


class SlowToLoadInTurn(SlowToLoad):
    """Does the same, one row after the other; the first one takes long."""

    def __call__(self, row, *, url):
        if row["id"] == 0:
            time.sleep(1.0)
        return ask_in_turn(row, url=url)


async def uses(row):
    """Answer without a server, and say what that used."""
    return {"id": row["id"], "usage": usage(row["id"])}


def passes_on(rows):
    return rows


def ids(rows):
    """Give other rows, without a word of what they cost."""
    return [{"id": row["id"]} for row in rows]


def ids_but_7(rows):
    if any(row["id"] == 7 for row in rows):
        raise ValueError("row 7")
    return ids(rows)


def uses_elsewhere(rows):
    """Say it for each row in another place; keep what it had."""
    return [{**row, "other": {"prompt_tokens": 1000}} for row in rows]


def ask_in_turn(row, *, url):
    """Do the same, one row after the other."""
    return asyncio.run(ask(row, url=url))


def ask_all(rows, *, url):
    """Do the same for a batch, in one call."""
    return [ask_in_turn(row, url=url) for row in rows]


def as_answered(row):
    """Return what the row says that it is answered with."""
    return row["answer"]


def all_as_answered(rows):
    """As `as_answered`, for a batch."""
    return [row["answer"] for row in rows]
