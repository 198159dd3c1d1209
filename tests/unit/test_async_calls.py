"""The event loop of async capabilities, when a session ends before their calls do."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

from batchrunner.worker.event_loop import EventLoop
from patience import PATIENCE


def test_calls_without_a_reader_are_cancelled(caplog):
    """Asyncio reports each that is not as "destroyed but pending", below the last line of a stop."""
    loop, has_begun, ended = EventLoop(4), threading.Event(), []

    async def call():
        has_begun.set()
        try:
            await asyncio.gather(asyncio.sleep(PATIENCE), asyncio.sleep(PATIENCE))
        finally:
            ended.append("cancelled")
        return []

    answer = loop.submit(call())
    assert has_begun.wait(PATIENCE)
    with caplog.at_level(logging.ERROR, logger="asyncio"):
        loop.close()
        del answer
        gc.collect()

    assert ended == ["cancelled"]
    assert not caplog.records
