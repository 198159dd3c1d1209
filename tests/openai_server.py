"""A server that speaks OpenAI's protocol: it refuses what the published schema does, and fails on request.

`python openai_server.py FILE [SHARES]`: its URL goes into FILE. SHARES is JSON, such as `{"429": 0.03}`:
the share of requests that it fails so when they come first, or always if it is 1. GET /counts says how often each came;
POST /hold?after=N lets it answer N in all and the others wait, which is where a test kills its caller.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai_answers import PATHS, answer, digest_of
from openai_schema import complaints
from patience import PATIENCE

FAULTS = ("429", "500", "reset", "hang", "torn")
KEY = "sk-test-of-the-server-0123456789"


class Server:
    """See above.

    Attributes:
        requests: How often each request came, by the hash of its body.
        said: How often each status was answered; also each fault.
    """

    def __init__(self, shares: dict[str, float], *, strict: bool = True) -> None:
        self.requests: Counter[str] = Counter()
        self.said: Counter[str] = Counter()
        self._shares, self._strict = shares, strict
        self._most = math.inf

    async def post(self, request: Any) -> Any:
        from aiohttp import web

        try:
            path, body = request.path.removeprefix("/v1"), await request.json()
        except ConnectionResetError:  # the caller was killed
            return web.Response()
        digest = digest_of(body)
        self.requests[digest] += 1
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return self._refusal(401, f"wrong key: {request.headers.get('Authorization')}")
        if wrong := self._strict and complaints(path, "request", body):
            return self._refusal(400, "; ".join(wrong))
        if fault := self._fault(digest):
            return await self._failed(request, fault)
        while self.said["200"] >= self._most:
            await asyncio.sleep(0.01)
            if request.transport is None:  # the caller was killed
                return web.Response()
        self.said["200"] += 1
        headers = {"x-request-id": f"req_{digest[:16]}"}
        return web.json_response(answer(path, body), headers=headers)

    def _fault(self, digest: str) -> str | None:
        """Return how to fail the first of these requests, or each if all fail; None for not."""
        if self.requests[digest] > 1 and sum(self._shares.values()) < 1:
            return None
        at, below = int(digest[:8], 16) / 2**32, 0.0
        for fault, share in self._shares.items():
            below += share
            if at < below:
                return fault
        return None

    async def _failed(self, request: Any, fault: str) -> Any:
        from aiohttp import web

        if fault in ("429", "500"):
            return self._refusal(int(fault), "try again", headers={"retry-after-ms": "20"})
        self.said[fault] += 1
        if fault == "hang":
            await asyncio.sleep(PATIENCE)
        if fault == "torn":
            return web.Response(body=b'{"choices": [', content_type="application/json")
        request.transport.abort()
        return web.Response()

    def _refusal(self, status: int, message: str, headers: dict[str, str] | None = None) -> Any:
        from aiohttp import web

        self.said[str(status)] += 1
        kind = "invalid_request_error" if status < 429 else "server_error"
        error = {"message": message, "type": kind, "param": None, "code": None}
        headers = {"x-request-id": f"req_{self.said.total()}", **(headers or {})}
        return web.json_response({"error": error}, status=status, headers=headers)

    async def hold(self, request: Any) -> Any:
        from aiohttp import web

        self._most = float(request.query["after"])
        return web.Response()

    async def counts(self, _: Any) -> Any:
        from aiohttp import web

        return web.json_response({"requests": self.requests, "said": self.said})

    async def answered(self, _: Any) -> Any:
        from aiohttp import web

        return web.json_response({"answered": self.said["200"], "cpu": time.process_time()})


def main(file: str, shares: str = "{}", strict: str = "strict") -> None:
    from aiohttp import web

    server = Server(json.loads(shares), strict=strict == "strict")
    app = web.Application(client_max_size=32 << 20)
    app.add_routes([web.post(f"/v1{path}", server.post) for path in PATHS])
    app.add_routes([web.get("/counts", server.counts), web.get("/answered", server.answered)])
    app.add_routes([web.post("/hold", server.hold)])
    asyncio.run(_serve(app, Path(file)))


async def _serve(app: Any, file: Path) -> None:
    from aiohttp import web

    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    [address] = runner.addresses
    part = file.with_suffix(".part")
    part.write_text(f"http://127.0.0.1:{address[1]}")
    part.rename(file)  # whole when it is there
    await asyncio.Event().wait()


class Running:
    """A server in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environment = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": KEY}

    def counts(self) -> dict[str, Any]:
        """Return how often each request came, and how often each status was answered."""
        return self._get("counts")

    def answered(self) -> int:
        """Return how many answers it has given."""
        return int(self._get("answered")["answered"])

    def cpu(self) -> float:
        """Return the seconds of CPU that it has taken."""
        return float(self._get("answered")["cpu"])

    def _get(self, what: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=PATIENCE) as said:  # noqa: S310 - ours
            found: dict[str, Any] = json.load(said)
        return found

    def hold(self, *, after: float) -> None:
        url = f"{self.url}/hold?after={after}"
        urllib.request.urlopen(url, data=b"", timeout=PATIENCE).close()  # noqa: S310 - ours


@contextmanager
def running(folder: Path, *, strict: bool = True, **shares: float) -> Iterator[Running]:
    """Run a server as long as the block; *shares* as above, the statuses as `_429`."""
    file = folder / "server.url"
    named = json.dumps({name.removeprefix("_"): share for name, share in shares.items()})
    arguments = [str(file), named, "strict" if strict else "lenient"]
    process = subprocess.Popen([sys.executable, __file__, *arguments], env=dict(os.environ))
    try:
        deadline = time.monotonic() + PATIENCE
        while not file.exists():
            assert process.poll() is None and time.monotonic() < deadline, "no server"  # noqa: PT018
            time.sleep(0.02)
        yield Running(file.read_text())
    finally:
        process.kill()
        process.wait()
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
