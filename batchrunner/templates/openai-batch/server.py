"""Runs a command beside a server that speaks OpenAI's protocol and has no model.

`python server.py bash` is a shell; when it ends, so does the server. It answers with words of the
request, refuses what OpenAI would (a temperature of 9), and every fiftieth request with 429.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECONDS = 0.2  # that a model would take

_requests = itertools.count(1)


def chat(asked: dict[str, Any]) -> dict[str, Any]:
    words = asked["messages"][-1]["content"].split()
    content = " ".join(words[:8])
    if "response_format" in asked:
        content = json.dumps({"words": len(words), "first": words[0]})
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {"object": "chat.completion", "choices": [choice], "usage": usage(len(words), 8)}


def completions(asked: dict[str, Any]) -> dict[str, Any]:
    words = asked["prompt"].split()
    choice = {"index": 0, "text": words[-1], "finish_reason": "stop", "logprobs": None}
    return {"object": "text_completion", "choices": [choice], "usage": usage(len(words), 1)}


def embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    letters = [asked["input"].count(letter) / len(asked["input"]) for letter in "etaoinshrdlu"]
    data = [{"object": "embedding", "index": 0, "embedding": letters}]
    words = len(asked["input"].split())
    return {
        "object": "list",
        "data": data,
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def usage(prompt: int, completion: int) -> dict[str, int]:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**counts, "total_tokens": prompt + completion}


ANSWERS = {
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/embeddings": embeddings,
}


class Model(BaseHTTPRequestHandler):
    """Answers POST at the paths of `ANSWERS`."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = next(_requests)
        if self.path not in ANSWERS:
            return self.refuse(404, f"there is no {self.path}")
        if not 0 <= asked.get("temperature", 1) <= 2:
            return self.refuse(400, "temperature must be between 0 and 2", param="temperature")
        if number % 50 == 0:
            return self.refuse(429, "too many requests")
        time.sleep(SECONDS)
        head = {"id": f"answer-{number}", "model": asked["model"], "created": int(time.time())}
        return self.answer(200, {**head, **ANSWERS[self.path](asked)})

    def refuse(self, status: int, message: str, param: str | None = None) -> None:
        kind = "invalid_request_error" if status < 429 else "rate_limit_error"
        error = {"message": message, "type": kind, "param": param, "code": None}
        self.answer(status, {"error": error})

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


class Server(ThreadingHTTPServer):
    """Keeps many callers waiting rather than refusing them."""

    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about callers that were killed."""


def main() -> int:
    command = sys.argv[1:] or [os.environ.get("SHELL", "sh")]
    server = Server(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
        "OPENAI_API_KEY": "none",
    }
    print(f"{where['OPENAI_BASE_URL']} answers as long as {command[0]} runs", flush=True)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command
    return subprocess.call(command, env={**os.environ, **where})


if __name__ == "__main__":
    sys.exit(main())
