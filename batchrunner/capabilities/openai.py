"""Sends the requests of an OpenAI batch file to any server that speaks OpenAI's protocol.

A row is a line of such a file (`batchrunner.capabilities.batch_file` says what it holds, and what the
line of the output holds).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.capabilities.batch_file import (
    InvalidRequestError,
    RequestFailedError,
    body_of,
    output_line,
    refusal,
)
from batchrunner.capabilities.extras import extra
from batchrunner.capabilities.repeated import repeated_values
from batchrunner.formats.json_rows import unique_keys
from batchrunner.spec.secrets import remember

if TYPE_CHECKING:
    from httpx2 import Response


class Completions:
    """Sends each row's request once; the request and its response pass through as they are.

    Built once per worker. OPENAI_API_KEY has the key and, if *base_url* is not given, OPENAI_BASE_URL
    the server: a run goes on with another key or server if the environment has it.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        timeout: float = 600,
        unique_in: str | Sequence[str] = (),
    ) -> None:
        """Send nothing yet.

        Args:
            base_url: Where the server is, with `/v1` if its paths begin so.
            timeout: Seconds after which a request without an answer has failed.
            unique_in: The batch files, or their folders. They are read now, and requests that share
                their `custom_id` with another one are refused. None by default.

        Raises:
            CapabilityImportError: The client is not installed.
            openai.OpenAIError: There is no key.
            FileNotFoundError: There is no file of *unique_in*.
        """
        with extra("openai"):
            from openai import AsyncOpenAI
        # No retries of its own: those of `errors.retry` keep to `execution.rate_limit`.
        self._client = AsyncOpenAI(base_url=base_url, timeout=timeout, max_retries=0)
        remember({"api_key": self._client.api_key})  # a server may repeat it in what it says
        self._repeated = repeated_values(unique_in, field="custom_id")

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the line of the output for *row*.

        Raises:
            InvalidRequestError: The row is no request, and nothing was sent.
            RequestFailedError: The server refused it, or did not answer.
        """
        if why := refusal(row, repeated=self._repeated):
            raise InvalidRequestError.of(row, why, code="invalid_request")
        response = await self._response(row)
        _check_was_sent(row, response)
        try:
            return output_line(row, response=body_of(response, _json(response)))
        except ValueError as error:
            raise RequestFailedError.of(row, str(error), code="invalid_response") from error

    async def _response(self, row: dict[str, Any]) -> Response:
        """Return the response to *row*, with a status below 400.

        Not by the client's method for each endpoint: it would drop, or refuse, what another version
        of the protocol or the server has beyond it.
        """
        from httpx2 import Response
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        body = json.dumps(row["body"], allow_nan=False).encode()
        try:
            path = row["url"].removeprefix("/v1")
            return await self._client.post(path, cast_to=Response, content=body)
        except APIStatusError as error:
            _check_was_sent(row, error.response)
            raise RequestFailedError.refused(row, error.response) from error
        except APITimeoutError as error:
            raise RequestFailedError.of(row, "no answer in time", code="request_timeout") from error
        except APIConnectionError as error:
            why = f"{self._client.base_url} does not answer: {error.__cause__!r}"
            raise RequestFailedError.of(row, why, code="connection_error") from error


def _check_was_sent(row: Mapping[str, Any], response: Response) -> None:
    """Check that *response* answers the request with its body.

    Raises:
        RequestFailedError: A redirect, as HTTP has it for 301, 302 and 303, made it a GET without one.
    """
    if response.request.method != "POST":
        moved = response.history[0]
        why = (
            f"HTTP {moved.status_code}: {moved.request.url} is at {moved.headers['location']}, where a redirect "
            "brings no body: name the server so (base_url, OPENAI_BASE_URL)"
        )
        raise RequestFailedError.of(row, why, code="redirected")


def _json(response: Response) -> Any:
    """Return the JSON in *response*, in which no key stands twice.

    Raises:
        ValueError: It is none, or cannot be kept as it is.
    """
    try:
        return json.loads(response.content, object_pairs_hook=unique_keys)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the answer is no JSON: {response.text[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer cannot be kept as it is: {error}") from error
