"""A server that speaks OpenAI's protocol and has no model: it answers with the prompt's first line.

Every fiftieth request is refused with 429, as a real one does when too many come at once.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8399/v1")
SECONDS = 0.2  # that a model would take

_requests = itertools.count(1)


class Echo(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions."""

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(size))
        if next(_requests) % 50 == 0:
            return self.answer(429, {"error": {"message": "too many requests"}})
        time.sleep(SECONDS)
        return self.answer(200, completion(asked))

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


def completion(asked: dict[str, Any]) -> dict[str, Any]:
    prompt = asked["messages"][-1]["content"]
    answer = prompt.partition("\n")[2].strip().partition("\n")[0]
    words = len(prompt.split()) + len(answer.split())
    return {
        "object": "chat.completion",
        "model": asked["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}}],
        "usage": {"total_tokens": words},
    }


class Server(ThreadingHTTPServer):
    """Keeps many callers waiting rather than refusing them."""

    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    address = urlsplit(URL)
    try:
        server = Server((address.hostname or "127.0.0.1", address.port or 80), Echo)
    except OSError as error:
        sys.exit(
            f"{URL}: {error.strerror}; set OPENAI_BASE_URL to another port, here and for the run"
        )
    print(f"{URL} echoes prompts; end it with Ctrl-C or kill", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
