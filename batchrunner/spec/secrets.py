"""Redact secrets: values under keys such as `token`, and the credentials in URIs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

HIDDEN = "***"

_SHORTEST, _SHORTEST_LINE = 6, 16
"""Least length of a secret, and of one line of it, to remember: hiding every "1" garbles text."""

_remembered: set[str] = set()
"""Secrets of the specs that this process has read."""
_remembered_urls: set[str] = set()
"""Their webhooks, of which only the host may be shown."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET = re.compile(
    r"secret|passw|passphrase|credential|token(?:_|$)"  # but neither tokenizer nor max_tokens
    r"|(?:^|_)(?:api|access|account|auth|master|private|shared|signing|ssh|storage)?key(?:id)?(?:_|$)"
    r"|(?:^|_)(?:auth|authorization|signature|sig|sas|pwd)(?:_|$)"
    r"|(?:api|access|account|auth|private)_?(?:keys|tokens)$"
)
_KEY = re.compile(r"([\w.-]{1,100})[\"']?\s*:")
_WORD = re.compile(r"[\w.-]{1,100}")
_AFTER_SCHEME = re.compile(r"(?<=://)[^\s\"'<>]+")
_WEBHOOK = re.compile(
    r"(https?://(?:hooks?\.[^\s/\"'<>]+|[^\s/\"'<>]+(?:/[^\s/\"'<>?#]+)*?/(?:web)?hooks?\w*)/)"
    r"[^\s\"'<>?#]+",
    re.IGNORECASE,
)
"""The address of a chat's webhook, whose path is the permission to post."""
_PARAMETER = re.compile(r"(?<=[?&;])([^\s=&;]{1,64})=([^\s&;\"']+)")


def looks_secret(key: object) -> bool:
    """Return whether *key* names something like a key, secret, token, password or credential."""
    return bool(_SECRET.search("_".join(_WORDS.findall(str(key))).lower()))


def hides(key: object, *, under: object = None) -> bool:
    """Return whether all values under *key*, itself *under* another one, are secret."""
    is_webhook = (under, key) == ("webhook", "url")  # whatever its host: its path may be the secret
    return "env_vars" in str(key) or looks_secret(key) or is_webhook


def first_possible_secret(text: str, at: int, *, since: int) -> int | None:
    """Return where the first possible secret near *at* starts, in a text that is not YAML, or None.

    A secret may follow a key that looks secret, on the line of *at* or from *since* on; it may be in
    a URI; or the line of *at* may hold it, if it follows such a key or is indented below one. Without
    a parse, too much is hidden rather than too little.
    """
    line = text.rfind("\n", 0, at) + 1
    start = min(line, since)
    shown = text[start : at + 1000]
    offsets = [start + key.end() for key in _KEY.finditer(shown) if _may_hide(key[1])][:1]
    if "://" in shown and "@" in shown:
        offsets.append(start + shown.index("://") + 3)
    if any(_may_hide(word) for above in _above(text, line) for word in _WORD.findall(above)):
        offsets.append(line)
    return min(offsets, default=None)


def _may_hide(word: str) -> bool:
    return word == "webhook" or hides(word)


def _above(text: str, line: int) -> Iterator[str]:
    """Yield the line before offset *line*, and each line that the line there is indented below."""
    rest = text[line:]
    indent = len(rest) - len(rest.lstrip(" \t"))
    written = [above for above in text[:line].splitlines() if above.strip()]
    yield from written[-1:]  # a value may have slipped to the next line
    for above in reversed(written):
        depth = len(above) - len(above.lstrip())
        if depth < indent:
            indent = depth
            yield above


def redact_uri(uri: str) -> str:
    """Return *uri*, or a text with URIs in it, with passwords, signatures, webhooks' paths as `***`."""
    uri = _WEBHOOK.sub(rf"\1{HIDDEN}", _AFTER_SCHEME.sub(_redacted_userinfo, uri))
    return _PARAMETER.sub(_redacted_parameter, uri)


def remember(value: Any) -> None:
    """Have `scrubbed` hide the secrets in *value*, at any depth, in every text of this process.

    Secrets of fewer than 6 characters are left out, since replacing them would garble other text.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "webhook" and isinstance(inner, Mapping):
                _remembered_urls.update(filter(_has_path, _texts(inner.get("url"))))
            _remembered.update(
                form for text in _texts(inner) if hides(key) for form in _forms(text)
            )
            remember(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            remember(inner)


def _forms(secret: str) -> Iterator[str]:
    """Yield *secret* as it may be quoted: as is, for Python, JSON or a URL, and by line."""
    yield from (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""))
    yield from (line for line in secret.split("\n") if len(line) >= _SHORTEST_LINE)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and len(value) >= _SHORTEST:
        yield value
    for inner in value.values() if isinstance(value, Mapping) else ():
        yield from _texts(inner)
    for inner in value if isinstance(value, list | tuple) else ():
        yield from _texts(inner)


def scrubbed(text: str) -> str:
    """Return *text*, such as a library's message, without remembered secrets or those in URIs."""
    for secret in sorted(
        _remembered, key=len, reverse=True
    ):  # longest first: one may be a part of another
        text = text.replace(secret, HIDDEN)
    for url in sorted(_remembered_urls, key=len, reverse=True):
        text = text.replace(url, _only_host(url))
    return redact_uri(text)


def redacted(value: Any) -> Any:
    """Return a copy of *value* to show to people: secrets, at any depth, are `***`.

    Secrets are all values under a key that `looks_secret`, all values of `env_vars`, and the
    credentials in URIs, and the path of a webhook's `url`.
    """
    if isinstance(value, str):
        return redact_uri(value)
    if isinstance(value, Mapping):
        return {key: _redacted_item(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(redacted, value))
    return value


def _redacted_item(key: object, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if key == "env_vars" and isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    if key == "webhook" and isinstance(value, Mapping) and isinstance(value.get("url"), str):
        return {**redacted(value), "url": _only_host(value["url"])}
    return HIDDEN if looks_secret(key) else redacted(value)


def _has_path(url: str) -> bool:
    return _only_host(url) != url


def _only_host(url: str) -> str:
    """Return the webhook *url* with what follows its host as `***`."""
    scheme, slashes, rest = url.rpartition("://")
    host = re.split(r"[/?#\s]", rest, maxsplit=1)[0]
    if len(rest) - len(host) <= 1:  # there is no more than a slash
        return redact_uri(url)
    return f"{redact_uri(scheme + slashes + host)}/{HIDDEN}"


def _redacted_userinfo(match: re.Match[str]) -> str:
    authority, slash, rest = match[0].partition("/")
    if "@" in authority:
        return f"{HIDDEN}@{authority.rpartition('@')[2]}{slash}{rest}"
    _, colon, port = authority.partition(":")
    if colon and not port.isdecimal() and "@" in rest:  # a password may hold a slash
        return f"{HIDDEN}@{rest.rpartition('@')[2]}"
    return match[0]


def _redacted_parameter(match: re.Match[str]) -> str:
    return f"{match[1]}={HIDDEN}" if looks_secret(match[1]) else match[0]
