"""What of a spec decides its output, so that a run is only continued by the same work."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping

from batchrunner.spec.diagnosis import visible
from batchrunner.spec.model import BatchSpec
from batchrunner.spec.phrases import Loc
from batchrunner.spec.secrets import looks_secret, redacted
from batchrunner.spec.section import ADDED, NEUTRAL, ORDERED, Section

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SEALED = "sha256:"
_MAX_VALUE = 120


def decisive_fields(spec: BatchSpec, *, code: str | None) -> dict[str, str]:
    """Return what decides the output: dotted paths, sorted, and their values as JSON.

    Fields that are not set are left out. In place of a secret, and of a value that came from the
    environment, stands its digest (`sha256:...`): the result may be stored and shown.

    Args:
        spec: The spec.
        code: Hash of the capability's code; left out when `capability.version` stands in for it.
    """
    fields = {
        _dotted(path): _sealed(text) if secret or _within(path, spec.from_environment) else text
        for path, text, secret in _leaves(spec, ())
    }
    if code is not None and "capability.version" not in fields:
        fields["capability.code"] = _sealed(_canonical(code))
    return dict(sorted(fields.items()))


def fingerprint(fields: Mapping[str, str]) -> str:
    """Return the SHA-256 of *fields*, in hex. A value and its digest give the same."""
    sealed = sorted((path, _sealed(text)) for path, text in fields.items())
    return hashlib.sha256(_canonical(sealed).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a line for each field that differs, such as `source.limit: 100 -> 200`.

    What is stored as a digest only reads `capability.code: changed`.
    """
    lines = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path, "none"), new.get(path, "none")
        if _sealed(before) != _sealed(after):
            opaque = before.startswith(_SEALED) or after.startswith(_SEALED)
            change = "changed" if opaque else f"{_short(before)} -> {_short(after)}"
            lines.append(f"{visible(path)}: {change}")
    return lines


def _leaves(section: Section, path: Loc) -> Iterator[tuple[Loc, str, bool]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if NEUTRAL in field.metadata or value is None:
            continue
        if ADDED in field.metadata and value == field.default:
            continue
        inner = (*path, field.alias or name)
        if isinstance(value, Section):
            yield from _leaves(value, inner)
        elif ORDERED in field.metadata:
            yield inner, _canonical(list(value.items())), False
        elif value != {}:
            yield from _items(value, inner, secret=False)


def _items(value: object, path: Loc, *, secret: bool) -> Iterator[tuple[Loc, str, bool]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _items(inner, (*path, key), secret=secret or looks_secret(key))
    else:
        text = _canonical(value)
        yield path, text, secret or _canonical(redacted(value)) != text


def _within(path: Loc, hidden: frozenset[Loc]) -> bool:
    return any(path[: len(other)] == other[: len(path)] for other in hidden)


def _dotted(path: Loc) -> str:
    return ".".join(str(s) if _BARE.fullmatch(str(s)) else _canonical(s) for s in path)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _sealed(text: str) -> str:
    if text.startswith(_SEALED):
        return text
    return _SEALED + hashlib.sha256(text.encode()).hexdigest()


def _short(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"
