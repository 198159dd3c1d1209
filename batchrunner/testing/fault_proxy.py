"""An HTTP proxy between a client and an S3 server that injects network faults.

It passes requests on unchanged, the Host header included, so signatures stay valid.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from urllib.parse import unquote, urlsplit

from batchrunner.testing.s3_servers import S3Server

_FOREVER = 3600.0


class NetworkFaultKind(StrEnum):
    """What the proxy does to a request that is to fail."""

    STATUS = "status"
    """The proxy answers with an error, and does not pass the request on."""
    RESET_BEFORE = "reset_before"
    """The connection breaks before the request is passed on."""
    RESET_DURING = "reset_during"
    """The connection breaks in the middle of the request's body."""
    RESET_AFTER = "reset_after"
    """The server does the request, but the connection breaks before its answer: a lost ack."""
    CUT_BODY = "cut_body"
    """The connection breaks in the middle of the answer."""
    HANG = "hang"
    """The proxy does nothing for an hour, then passes the request on."""
    DELAY = "delay"
    """The request is passed on late."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Which requests fail, and how.

    Attributes:
        kind: How they fail.
        method: HTTP method of the requests, or "" for any.
        target: Regular expression to search in the path and query, with percent signs decoded.
        nth: Number of the only matching request to fail, counted from 1; None for every one.
        lasts: Whether every matching request after the nth fails, too: the server went down.
        sticks: Whether the nth request fails again whenever the client repeats it.
        status: HTTP status, for `NetworkFaultKind.STATUS`.
        code: S3's error code, for `NetworkFaultKind.STATUS`.
        headers: More headers of that answer, as "name: value" lines.
        body: Body of that answer, in place of S3's usual one; "" for none at all.
        seconds: How long to wait, for `NetworkFaultKind.DELAY`.
    """

    kind: NetworkFaultKind
    method: str = ""
    target: str = ""
    nth: int | None = None
    lasts: bool = False
    sticks: bool = False
    status: int = 503
    code: str = "SlowDown"
    headers: tuple[str, ...] = ()
    body: str | None = None
    seconds: float = 0.1

    def strikes(self, number: int) -> bool:
        """Return whether matching request *number* fails, counted from 1."""
        return self.nth in {None, number} or (self.lasts and number > (self.nth or 0))

    def is_about(self, method: str, target: str) -> bool:
        """Return whether a request with this *method* and *target* matches."""
        return self.method in {"", method} and re.search(self.target, target) is not None


@dataclass(frozen=True, slots=True)
class _ReceivedRequest:
    method: str
    target: str
    head: bytes
    length: int
    waits: bool
    """Whether the client sends the body only once it is asked for it."""


class FaultProxy:
    """A proxy in a thread of this process.

    Attributes:
        server: The server as clients reach it, through the proxy.
        requests: "METHOD /path?query" of each request since the last `inject`, failed or not.
        at_once: Most requests that were not answered yet at one time since then.
        fired: How many requests have failed since then.
        struck: The last request that failed, as in `requests`.
    """

    def __init__(self, upstream: S3Server) -> None:
        address = urlsplit(upstream.endpoint)
        self._upstream = (str(address.hostname), int(address.port or 80))
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self.server = upstream
        self.requests: list[str] = []
        self.fired, self.struck = 0, ""
        self._unanswered = self.at_once = 0

    def inject(self, *faults: Fault) -> None:
        """Inject *faults* from now on, in place of earlier ones, and count requests from 0."""
        self._seen = [0] * len(faults)
        self._faults = list(faults)
        self.requests, self.fired, self.struck = [], 0, ""
        self.at_once = 0

    def start(self) -> None:
        """Start the thread, and listen on a free port of loopback."""
        self._thread.start()
        self._listener = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        port = self._listener.sockets[0].getsockname()[1]
        self.server = replace(self.server, endpoint=f"http://127.0.0.1:{port}")

    def stop(self) -> None:
        """Break all connections, and end the thread."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _close(self) -> None:
        self._listener.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- for mypy: a callback of a server is a task
        self._connections.add(task)
        try:
            while (request := await _read_head(reader)) is not None:
                with self._counted():
                    await self._serve(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._unanswered += 1
        self.at_once = max(self.at_once, self._unanswered)
        try:
            yield
        finally:
            self._unanswered -= 1

    async def _serve(
        self,
        request: _ReceivedRequest,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.requests.append(f"{request.method} {request.target}")
        fault = self._fault_for(request)
        kind = fault.kind if fault else None
        if request.waits:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if kind is NetworkFaultKind.RESET_DURING:
            await reader.readexactly(request.length // 2)
            _reset(writer)
        body = await reader.readexactly(request.length)
        if fault and kind is NetworkFaultKind.STATUS:
            writer.write(_answer(fault, request.method))
        elif kind is NetworkFaultKind.RESET_BEFORE:
            _reset(writer)
        else:
            if fault and kind in {NetworkFaultKind.HANG, NetworkFaultKind.DELAY}:
                await asyncio.sleep(_FOREVER if kind is NetworkFaultKind.HANG else fault.seconds)
            answer = await self._pass_on(request, body)
            if kind is NetworkFaultKind.RESET_AFTER:
                _reset(writer)
            if kind is NetworkFaultKind.CUT_BODY:
                head, _, body = answer.partition(b"\r\n\r\n")
                writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
                await writer.drain()
                raise ConnectionAbortedError
            writer.write(answer)
        await writer.drain()

    def _fault_for(self, request: _ReceivedRequest) -> Fault | None:
        what = f"{request.method} {request.target}"
        for index, fault in enumerate(self._faults):
            if fault.is_about(request.method, request.target):
                self._seen[index] += 1
                again = fault.sticks and what == self.struck
                if again or fault.strikes(self._seen[index]):
                    self.fired, self.struck = self.fired + 1, what
                    return fault
        return None

    async def _pass_on(self, request: _ReceivedRequest, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            writer.write(request.head + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        # The client's connection stays open: clients behave differently on one that they reuse.
        head, _, body = answer.partition(b"\r\n\r\n")
        return _without(head, b"connection") + b"\r\n" + body


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionResetError


def _answer(fault: Fault, method: str) -> bytes:
    usual = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>"
    body = (usual if fault.body is None else fault.body).encode()
    lines = [f"HTTP/1.1 {fault.status} Injected", f"Content-Length: {len(body)}", *fault.headers]
    if body and not any(line.startswith("Content-Type:") for line in fault.headers):
        lines.append("Content-Type: application/xml")
    # The answer to HEAD has the headers of a body, and no body.
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if method == "HEAD" else body)


async def _read_head(reader: asyncio.StreamReader) -> _ReceivedRequest | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:  # the client is done with this connection
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    waits = headers.get("expect", "").lower() == "100-continue"
    length = int(headers.get("content-length", 0))
    forwarded = _without(head.removesuffix(b"\r\n\r\n"), b"expect", b"connection")
    return _ReceivedRequest(method, unquote(target), forwarded, length, waits)


def _without(head: bytes, *names: bytes) -> bytes:
    """Return the lines of *head*, each with its line end, without the headers *names*."""
    lines = head.split(b"\r\n")
    return b"".join(
        line + b"\r\n" for line in lines if line.partition(b":")[0].lower() not in names
    )


@contextlib.contextmanager
def fault_proxy(server: S3Server) -> Iterator[FaultProxy]:
    """Run a proxy in front of *server*, in a thread of this process."""
    proxy = FaultProxy(server)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
