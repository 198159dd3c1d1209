"""The hook `webhook`: posts what happens to a run, as JSON, to a URL. An example to copy."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import math
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from shlex import quote
from urllib.parse import urlsplit

from batchrunner.errors import InvalidSpecError
from batchrunner.hooks.contract import (
    METHODS,
    DeadLetterKept,
    Event,
    RunEnded,
    RunStarted,
    ShardCommitted,
)

_TRIES = 4
_PAUSE_SECONDS, _LONGEST_PAUSE = 0.5, 5.0
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


class Webhook:
    """Posts each event as a JSON object, which holds a line of `text` that Slack and its kin show.

    A post that fails for a reason that may pass (no connection, no answer, 429, 5xx) is tried four
    times within some 20 s. So a receiver may get it twice, with the same `X-Batchrunner-Delivery`.
    """

    def __init__(
        self,
        *,
        url: str,
        events: Sequence[str] = ("on_run_start", "on_run_end"),
        secret: str | None = None,
        timeout: float = 4.0,
    ) -> None:
        """Prepare the hook; nothing is posted yet.

        Args:
            url: Where to post: http:// or https://. A redirect is not followed.
            events: Names of the methods to post; by default, the start and the end of a session.
            secret: Key of the signature `X-Batchrunner-Signature: sha256=<HMAC of the body, in hex>`;
                None for no signature.
            timeout: Seconds that a try may take.

        Raises:
            InvalidSpecError: An option is malformed.
        """
        self.check(url=url, events=events, secret=secret, timeout=timeout)
        self._url, self._events, self._timeout = url, frozenset(events), float(timeout)
        self._key = secret.encode() if secret else None
        self._open = urllib.request.build_opener(_NoRedirect).open

    @staticmethod
    def check(
        *, url: object, events: object = (), secret: object = None, timeout: object = 1.0
    ) -> None:
        """Check the options, without a request.

        Raises:
            InvalidSpecError: One of them is malformed.
        """
        _check_url(url)
        if not isinstance(events, list | tuple):
            raise InvalidSpecError(f"webhook: events must be a list of {', '.join(METHODS)}")
        if unknown := [str(name) for name in events if name not in METHODS]:
            raise InvalidSpecError(
                f'webhook: events has "{unknown[0][:60]}"; it takes {", ".join(METHODS)}'
            )
        if secret is not None and not isinstance(secret, str):
            raise InvalidSpecError("webhook: secret must be a string: put it in quotes")
        if not _is_above_zero(timeout):
            raise InvalidSpecError("webhook: timeout must be a number of seconds above zero")

    def on_run_start(self, event: RunStarted) -> None:
        self._post("on_run_start", event)

    def on_shard_committed(self, event: ShardCommitted) -> None:
        self._post("on_shard_committed", event)

    def on_dead_letter(self, event: DeadLetterKept) -> None:
        self._post("on_dead_letter", event)

    def on_run_end(self, event: RunEnded) -> None:
        self._post("on_run_end", event)

    def _post(self, name: str, event: Event) -> None:
        if name not in self._events:
            return
        payload = {"version": 1, "event": name, "text": text_of(event), **asdict(event)}
        body = json.dumps(payload, ensure_ascii=False).encode(errors="backslashreplace")
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "batchrunner",
            # The same for all tries, so that a receiver can distinguish a retry from another event.
            "X-Batchrunner-Delivery": uuid.uuid4().hex,
            **_signature(body, self._key),
        }
        request = urllib.request.Request(self._url, body, headers, method="POST")  # noqa: S310 - checked
        self._send(request)

    def _send(self, request: urllib.request.Request) -> None:
        for attempt in range(1, _TRIES + 1):
            problem, pause = self._try(request, pause=_PAUSE_SECONDS * 2 ** (attempt - 1))
            if problem is None:
                return
            if pause is None or attempt == _TRIES:
                raise ConnectionError(problem)
            time.sleep(pause)

    def _try(
        self, request: urllib.request.Request, *, pause: float
    ) -> tuple[str | None, float | None]:
        """Post once; return what went wrong, and the seconds until the next try if one may help."""
        host = urlsplit(self._url).netloc  # not the whole URL: its path is often the secret
        try:
            self._open(request, timeout=self._timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            asked = _seconds(error.headers.get("Retry-After"))
            wait = min(asked or pause, _LONGEST_PAUSE) if error.code in _TEMPORARY else None
            return f"{host} answered {error.code} {error.reason}", wait
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            return f"{host} did not answer: {type(error).__name__}: {reason}", pause
        return None, None


def _check_url(url: object) -> None:
    wrong = "webhook: url must begin with http:// or https:// and a host"
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError as error:  # of the port, or of an address in brackets
        raise InvalidSpecError(f"{wrong}: {error}") from error
    if not is_whole:
        raise InvalidSpecError(wrong)
    if "@" in parts.netloc:
        raise InvalidSpecError("webhook: url must hold no user or password; sign with `secret`")


def _is_above_zero(value: object) -> bool:
    try:
        return 0 < float(value) < math.inf  # type: ignore[arg-type]  # `${VAR}` is a text
    except (TypeError, ValueError):
        return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: urllib would follow with a GET, and to any host."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def text_of(event: Event) -> str:
    """Return *event* as a line of text, in which no row can address people or hide a link."""
    line = _line(event)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _line(event: Event) -> str:
    run = event.run.name
    if isinstance(event, RunStarted):
        return (
            f"{run}: started, {event.shards_committed:,} of {event.shards:,} shards are committed"
        )
    if isinstance(event, ShardCommitted):
        failed = f", {event.rows_failed:,} failed" if event.rows_failed else ""
        return f"{run}: shard {event.shard} committed, {event.rows_out:,} rows out{failed}"
    if isinstance(event, DeadLetterKept):
        return f"{run}: a row of shard {event.shard} failed: {event.error}: {event.message[:300]}"
    counts = f"{event.rows_in:,} rows in, {event.rows_out:,} out, {event.rows_failed:,} failed"
    shards = f"{event.shards_committed:,} of {event.shards:,} shards committed"
    ended = f"{run}: {event.state}, {shards}, {counts}, {event.seconds:.0f} s"
    if not event.error:
        return f"{ended} ({event.run.sink})"
    # A line to paste, on any machine: it says what is safe, and what to do next.
    return f"{ended}: {event.error[:500]}; look: batchrunner status {quote(event.run.checkpoint)}"


def _signature(body: bytes, key: bytes | None) -> Mapping[str, str]:
    if key is None:
        return {}
    return {"X-Batchrunner-Signature": f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"}


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdecimal() else None
