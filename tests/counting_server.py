"""An API that counts what arrives, by its own clock: for tests of what its callers promise to keep to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """A request: its row, when it arrived, when it was sent, and the process that sent it."""

    id: int
    at: float
    sent: float
    pid: int


@dataclass
class CountingServer:
    """Answers `GET /<id>`.

    Attributes:
        seconds: How long an answer takes.
        refuses: Returns whether to refuse a row that comes for the first time, with 429 and `Retry-After: 0.1`.
    """

    seconds: float = 0.02
    refuses: Callable[[int], bool] = lambda _: False
    arrivals: list[Arrival] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    answered: list[int] = field(default_factory=list)
    most_at_once: int = 0
    url: str = ""
    _at_once: int = 0

    def on_time(self, seconds: float) -> list[float]:
        """When those arrived that were on their way for no longer: a busy machine holds others back."""
        return [one.at for one in self.arrivals if one.at - one.sent <= seconds]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        row = int(lines[0].split()[1].strip("/"))
        sent, pid = float(fields["Sent"]), int(fields["Pid"])
        self.arrivals.append(Arrival(row, time.time(), sent, pid))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._answer(row, writer)
            await writer.drain()
        finally:
            self._at_once -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, row: int, writer: asyncio.StreamWriter) -> None:
        if row not in self.refused and self.refuses(row):
            self.refused.add(row)
            writer.write(b"HTTP/1.1 429 Too Many\r\nRetry-After: 0.1\r\nContent-Length: 0\r\n\r\n")
            return
        await asyncio.sleep(self.seconds)
        self.answered.append(row)
        body = json.dumps({"id": row, "usage": usage(row)}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def usage(row: int) -> dict[str, Any]:
    """What the answer to *row* says that it used."""
    return {"prompt_tokens": 10 + row % 7, "completion_tokens": row % 3, "service_tier": "default"}


@contextmanager
def counting_server(**facts: Any) -> Iterator[CountingServer]:
    """Serve on loopback inside the block, in a thread."""
    server, loops, ready = CountingServer(**facts), list[Any](), threading.Event()

    async def main() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        done = asyncio.Event()
        loops.extend([asyncio.get_running_loop(), done])
        ready.set()
        async with listening:
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        loop, done = loops
        loop.call_soon_threadsafe(done.set)
        thread.join()


def most_in_a_window(times: Sequence[float], seconds: float) -> int:
    """The most that any window has."""
    times = sorted(times)
    first = most = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
