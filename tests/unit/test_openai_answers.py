"""What `Completions` makes of answers that no service should give: the row's error, with the fact."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batchrunner.capabilities.batch_file import RequestFailedError
from batchrunner.capabilities.openai import Completions

ANSWERS = {
    "/v1/embeddings": b'{"id": 1, "more": {"id": 2}}',
    "/v1/responses": b'{"id": 1, "id": 2}',
    "/v1/completions": b'{"id": ' + b"9" * 5000 + b"}",
    "/v1/moderations": b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        kind, _, rest = self.path.removeprefix("/").partition("/")
        if kind.isdigit():
            self.send_response(int(kind))
            self.send_header("Location", f"/{rest}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.answer(ANSWERS.get(self.path, b"<html>"))

    def do_GET(self):
        self.answer(b'{"is": "no answer"}', status=405 if "chat" in self.path else 200)

    def answer(self, content, *, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def answered(base_url, path):
    async def ask():
        row = {"custom_id": "a", "method": "POST", "url": f"/v1{path}", "body": {}}
        return await Completions(base_url=base_url)(row)

    return asyncio.run(ask())["response"]["body"]


@pytest.fixture(autouse=True)
def a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-for-a-test")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/responses", "cannot be kept as it is: the key 'id' stands twice"),
        ("/completions", "cannot be kept as it is: .*5000 digits"),
        ("/moderations", "cannot be kept as it is: maximum recursion depth"),
        ("/chat/completions", "the answer is no JSON: <html>"),
    ],
)
def test_an_answer_that_cannot_be_kept_as_it_is_fails_with_the_reason(server, path, why):
    """Of two values of a key, one would be lost; what is JSON is not said to be none."""
    assert answered(f"{server}/v1", "/embeddings") == {"id": 1, "more": {"id": 2}}
    with pytest.raises(RequestFailedError, match=why) as caught:
        answered(f"{server}/v1", path)
    assert '"invalid_response"' in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303])
@pytest.mark.parametrize("path", ["/embeddings", "/chat/completions"])
def test_an_answer_to_a_request_without_its_body_is_none(server, status, path):
    """A redirect of these makes it a GET, and whatever that gives would be taken for the answer."""
    with pytest.raises(
        RequestFailedError, match=f"HTTP {status}: .* is at /v1{path}, .*base_url"
    ) as caught:
        answered(f"{server}/{status}/v1", path)
    assert '"redirected"' in str(caught.value)


def test_a_redirect_that_keeps_the_body_is_followed(server):
    """Servers send a 307 for a slash at the end."""
    assert answered(f"{server}/307/v1", "/embeddings") == {"id": 1, "more": {"id": 2}}
