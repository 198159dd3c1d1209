"""A real HTTP server on loopback, which keeps what is posted, or answers as badly as it is asked to."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(ThreadingHTTPServer):
    """Answers each post with the next of `answers`, and with 200 when there are none left.

    An answer is a status, "hang" (until the receiver ends) or "reset" (of the connection).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, answers=()):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = deque(answers)
        self.posts, self.tries = [], []  # what was answered with 200, and all there was
        self.is_over = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Keep quiet: the other side may have gone."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        post = self.path, dict(self.headers), body
        self.server.tries.append(post)
        answer = self.server.answers.popleft() if self.server.answers else 200
        if answer == "hang":
            self.server.is_over.wait()
        elif answer == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            if answer == 200:
                self.server.posts.append((*post[:2], json.loads(body)))
            self.send_response(answer)
            if answer in (301, 307):
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_POST  # noqa: N815 - the server's word

    def log_message(self, *_):
        pass


@contextmanager
def a_receiver(*answers):
    server = Receiver(answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()
