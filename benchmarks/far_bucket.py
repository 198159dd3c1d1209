"""`python -m benchmarks.far_bucket`: 5,000 small objects from a bucket 30 ms away, as a resume reads them.

The store is a process that answers any request with the same bytes, 30 ms later: what is measured is
the client, on the CPU that is left. The goal is 5 s on an idle machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchrunner.checkpoint.sentinel_index import READERS
from batchrunner.storage import open_storage

OBJECTS, ROUND_TRIP = 5000, 0.03
_BODY = b'{"shard": 1}'.ljust(500)
_ANSWER = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nx-amz-request-id: 1\r\nContent-Length: %d\r\n\r\n%s' % (
    len(_BODY),
    _BODY,
)


class _Store(asyncio.Protocol):
    """Answers requests without a body, one at a time on each connection."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            self._received = b""
            loop = asyncio.get_running_loop()
            loop.call_later(ROUND_TRIP, self._transport.write, _ANSWER)


def _serve(port: Any) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Store, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def main() -> None:
    """Print how long it takes, and how much of that is CPU."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    store = context.Process(target=_serve, args=(sending,), daemon=True)
    store.start()
    options = {
        "key": "a",
        "secret": "b",
        "endpoint_url": f"http://127.0.0.1:{receiving.recv()}",
        "client_kwargs": {"region_name": "us-east-1"},
    }
    storage = open_storage("s3://bucket/sentinels", storage_options=options)
    storage.get("warm")
    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(storage.get, [f"part-{number:05d}.json" for number in range(OBJECTS)]))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{OBJECTS:,} objects, {ROUND_TRIP * 1000:.0f} ms away: {seconds:.2f} s, {cpu:.2f} s of CPU"
    )
    store.kill()


if __name__ == "__main__":
    main()
