"""A real HTTP server on loopback that answers as a paid API does on a bad day, and counts what it is asked."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("refused", "broken", "reset", "hang")


class FlakyApi(ThreadingHTTPServer):
    """Answers the row n with n squared; of all requests, a *share* meets each of `FAULTS`, by chance.

    Rows in *poison* are never answered. More than *most* requests in any second are refused, and counted.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, *, share=0.0, poison=(), most=None, seed=0, retry_after=1):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.share, self.poison, self.most = share, frozenset(poison), most
        self.retry_after = retry_after
        self.chance, self.lock = random.Random(seed), threading.Lock()
        self.asked, self.verdicts = Counter(), Counter()
        self.answered = Counter()
        self.times, self.passed = [], 0
        self.is_over = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/square"

    def __exit__(self, *_):
        self.is_over.set()
        self.shutdown()
        self.server_close()

    def verdict(self, row):
        with self.lock:
            now = time.monotonic()
            self.times = [t for t in self.times if now - t < 1] + [now]
            self.asked[row] += 1
            verdict = self._verdict(row)
            self.verdicts[verdict] += 1
            if verdict == "answered":
                self.answered[row] += 1
        return verdict

    def _verdict(self, row):
        if self.most is not None and len(self.times) > self.most:
            self.passed += 1
            return "refused"
        at = self.chance.random()
        if at < len(FAULTS) * self.share:
            return FAULTS[int(at / self.share)]
        return "poison" if row in self.poison else "answered"

    def handle_error(self, request, client_address):
        """Keep quiet: the other side may have been killed."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["id"]
        verdict = self.server.verdict(row)
        if verdict == "hang":
            self.server.is_over.wait()
        elif verdict == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            self._answer({"refused": 429, "broken": 500, "poison": 500}.get(verdict, 200), row)

    def _answer(self, status, row):
        body = json.dumps({"square": row * row, "by": "the API"}).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", str(self.server.retry_after))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Keep quiet."""
