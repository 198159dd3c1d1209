"""The lines of OpenAI's batch files: requests, output and errors.

Input: `custom_id`, `method` (POST), `url`, `body`. Output: `id`, `custom_id`, `response` (`status_code`,
`request_id`, `body`), `error`. A line of the error file has the same fields: `response` if the server
refused the request, else null, and then `error` has `code` and `message`. Sources: the objects
BatchRequestInput and BatchRequestOutput of OpenAI's API reference, what its service writes for a request
that is refused (openai/openai-openapi, issue 302), and vLLM's `run-batch`, which reads and writes the
same. Azure's urls have no `/v1`; both are taken.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from xxhash import xxh3_128_hexdigest

if TYPE_CHECKING:
    from httpx2 import Response

PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/moderations")
"""What takes one JSON object and returns one, below `/v1`."""

_WAITS = ("retry-after", "retry-after-ms")
_ROOM, _LONGEST = 2000, 1000
"""Characters for which the message of a dead letter has room, and how many of them an answer may take."""


class RequestFailedError(Exception):
    """A request got no answer that can be used.

    Its text is a line for people, then the line of the batch's error file.

    Attributes:
        status_code: Status of the response, such as 429; None if there was none.
        headers: What it says of when to ask again: `retry-after`, `retry-after-ms`.
    """

    def __init__(
        self, text: str, status_code: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status_code, self.headers = status_code, headers or {}

    @classmethod
    def of(cls, row: Mapping[str, Any], why: str, *, code: str) -> Self:
        """Return the error of a request without a response; *code* is for scripts."""
        error = {"code": code, "message": _cut(why)}
        return cls(_text(why, output_line(row, error=error)))

    @classmethod
    def refused(cls, row: Mapping[str, Any], response: Response) -> Self:
        """Return the error of a request whose *response* has a status of 400 or more."""
        body = _short(response.text)
        line = output_line(row, response=body_of(response, body))
        why = f"HTTP {response.status_code}: {_message(body) or response.reason_phrase}"
        waits = {name: response.headers[name] for name in _WAITS if name in response.headers}
        return cls(_text(why, line), response.status_code, waits)


class InvalidRequestError(RequestFailedError):
    """A row is no request that can be sent: it was not."""


def refusal(row: Mapping[str, Any], *, repeated: Container[str] = ()) -> str | None:
    """Return why *row* cannot be sent; None if it can.

    Its `custom_id` must not be one of those that are *repeated*.
    """
    return next(_refusals(row, repeated), None)


def _refusals(row: Mapping[str, Any], repeated: Container[str]) -> Iterator[str]:
    custom_id, url, body = row.get("custom_id"), row.get("url"), row.get("body")
    if not isinstance(custom_id, str) or not custom_id:
        yield f"custom_id is {custom_id!r:.100}: each request needs a text of its own"
    elif custom_id in repeated:
        yield f"custom_id {custom_id!r:.100} names several requests: give each its own"
    if row.get("method") != "POST":
        yield f"method is {row.get('method')!r:.100}: it must be 'POST'"
    if not isinstance(url, str) or url.removeprefix("/v1") not in PATHS:
        yield f"url is {url!r:.100}: it must be one of {', '.join(f'/v1{path}' for path in PATHS)}"
    if not isinstance(body, dict):
        yield f"body is {body!r:.100}: it must be an object"
    elif body.get("stream") or body.get("background"):
        yield "body has stream or background: leave it out, for the output has whole answers"


def output_line(
    row: Mapping[str, Any],
    *,
    response: Mapping[str, Any] | None = None,
    error: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the line of the output or error file for the request in *row*.

    Its `custom_id` is null if that of the request is no text. Its `id` follows from the `custom_id`: it is the same whenever the request is sent.
    """
    custom_id = row.get("custom_id")
    if not isinstance(custom_id, str):
        custom_id = None
    digest = xxh3_128_hexdigest(json.dumps(custom_id).encode())
    return {
        "id": f"batch_req_{digest}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def body_of(response: Response, body: Any) -> dict[str, Any]:
    """Return the field `response` for a *response* whose content is *body*."""
    request_id = response.headers.get("x-request-id", "")
    return {"status_code": response.status_code, "request_id": request_id, "body": body}


def _text(why: str, line: Mapping[str, Any]) -> str:
    """Return *why* on a line, and *line* whole, without its `custom_id` where that is too long."""
    first = " ".join(why.split())[: _LONGEST // 2]
    text = f"{first}\n{_dumped(line)}"
    return text if len(text) <= _ROOM else f"{first}\n{_dumped({**line, 'custom_id': None})}"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _cut(text: str) -> str:
    """Return the first characters of *text*, as many as have room as JSON."""
    text = text[: _LONGEST // 2]
    while len(_dumped(text)) > _LONGEST + 2:
        text = text[: len(text) * _LONGEST // len(_dumped(text))]
    return text


def _short(text: str) -> dict[str, Any]:
    """Return the JSON in *text*, or an error of OpenAI's shape with its first characters."""
    with suppress(ValueError, RecursionError):
        found = json.loads(text) if len(text) <= _LONGEST else None
        if isinstance(found, dict) and len(_dumped(found)) <= _LONGEST:
            return found
    return {"error": {"message": _cut(text), "type": "unknown", "param": None, "code": None}}


def _message(body: Mapping[str, Any]) -> str:
    """Return what an error says for people: servers have it in one of three places."""
    error = body.get("error", body)
    said = error.get("message", error.get("detail")) if isinstance(error, dict) else error
    return "" if said is None else str(said)
