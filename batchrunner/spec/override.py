"""One override of a spec, `key=value`: a dotted path, and a value in YAML."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.secrets import HIDDEN, hides, redact_uri
from batchrunner.spec.text import read_document
from batchrunner.spec.yaml_text import flow

_STEP = r'"(?:[^"\\]|\\.)*"|[^\s."=]+'
_KEY = re.compile(rf"(?:{_STEP})(?:\.(?:{_STEP}))*(?==)")
_STEPS = re.compile(_STEP)
_WORD = re.compile(r"[\w.-]+")
_SHOWN = re.compile(r'[\w."-]*')
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class BadOverrideError(ValueError):
    """A text that is no override; *offset* is where it stops to be one."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Override:
    """An override whose value is not parsed yet.

    Attributes:
        text: As the user gave it.
        steps: The keys of its path, each with its offset in *text*.
        start: Offset of the value.
    """

    text: str
    steps: tuple[tuple[str, int], ...]
    start: int

    @classmethod
    def of(cls, text: str) -> Override:
        """Split *text*, such as `execution.batch_size=64`.

        Raises:
            BadOverrideError: It has no key, or no `=` after it.
        """
        key = _KEY.match(text)
        if key is None:
            at = _SHOWN.match(text)
            what = "write key=value, such as execution.batch_size=64; a key with dots in quotes"
            raise BadOverrideError(what, at.end() if at else 0)
        steps = tuple((_name(step[0]), step.start()) for step in _STEPS.finditer(key[0]))
        return cls(text, steps, key.end() + 1)

    @property
    def padded(self) -> str:
        """The value as YAML, with spaces before it, so that offsets are those in `text`."""
        return " " * self.start + self.text[self.start :]

    @property
    def is_secret(self) -> bool:
        """Whether the value as a whole is secret."""
        last, value = self.steps[-1][0], self.text[self.start :].lstrip()
        # Options are hidden by their keys. Without keys, after a typo, the value may be a secret.
        is_lone = last.endswith("_options") and not value.startswith("{")
        names = [name for name, _ in self.steps]
        is_webhook = "webhook" in (*names, *_words(value)) and "url" in (*names, *_words(value))
        return is_lone or is_webhook or any(map(hides, names))


def overrides_of(values: Mapping[str, Any] | Sequence[str]) -> tuple[str, ...]:
    """Return *values*, by dotted path, as overrides; texts of overrides are returned as they are.

    Raises:
        InvalidSpecError: A value is none that YAML can hold.
    """
    if not isinstance(values, Mapping):
        return tuple(values)
    return tuple(f"{path}={_in_yaml(path, value)}" for path, value in values.items())


def shown(text: str) -> str:
    """Return the override *text* to show or to keep: its value is `***` where it may be secret."""
    try:
        override = Override.of(text)
    except BadOverrideError as error:
        return text[: error.offset]
    if _is_reference(text[override.start :]) or not _may_be_secret(override):
        return text
    return text[: override.start] + HIDDEN


def _words(value: str) -> list[str]:
    """Return what may be a key in *value*: in a mapping, any of them may be one of a secret."""
    return re.findall(r"[\w.-]+", value) if value.lstrip().startswith(("{", "[")) else []


def as_words(profile: str, overrides: Sequence[str]) -> str:
    """Return the options that give *profile* and *overrides*, to paste into a shell."""
    words = ["--profile", profile] if profile else []
    for text in overrides:
        words += ["--set", shown(text)]
    return shlex.join(words)


def _may_be_secret(override: Override) -> bool:
    value = override.text[override.start :]
    if override.is_secret or redact_uri(value) != value:
        return True
    parsed = read_document(override.padded, origin="", environ={})
    secrets = (override.text[start:end] for start, end in parsed.page.secrets)
    if parsed.problems or not all(map(_is_reference, secrets)):
        return True
    # No parse looks into comments; and in a mapping with a typo, any word may be a secret's key.
    is_lone = parsed.root is None or not isinstance(parsed.root.value, dict | list)
    return not (is_lone and "#" not in value) and any(map(hides, _WORD.findall(value)))


def _is_reference(value: str) -> bool:
    return re.fullmatch(r"""(["']?)\$\{\w+(:\?[^}]*)?\}\1""", value) is not None


def _name(step: str) -> str:
    if not step.startswith('"'):
        return step
    try:
        return str(json.loads(step))
    except ValueError:
        return step[1:-1]


def _in_yaml(path: str, value: Any) -> str:
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    try:
        return flow(value, escape="$")
    except TypeError as error:
        raise InvalidSpecError(
            f"overrides: {path}: {error}; give other objects with spec.model_copy(update=...)"
        ) from error
