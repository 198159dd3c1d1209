"""What of a spec decides its output, so that a run is only continued by the same work."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping

from batchrunner.capability import Code
from batchrunner.capability.syntax import WHOLE
from batchrunner.spec.columns import canonical
from batchrunner.spec.diagnosis import Loc, visible
from batchrunner.spec.model import BatchSpec
from batchrunner.spec.secrets import looks_secret, redact_uri, redacted
from batchrunner.spec.section import ADDED, NEUTRAL, ORDERED, Section

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SEALED = "sha256:"
_MAX_VALUE = 120
_MAX_NAMES = 8
_SCHEMA = "sink.schema"
_OF_FILES = ("capability.code", "capability.files")

_CODE_OF_BEFORE = "capability.code"
"""The one field that the code had before it was told apart: a hash of the capability's module."""


def decisive_fields(
    spec: BatchSpec, *, code: Code | None, files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what decides the output: dotted paths, sorted, and their values as JSON.

    Fields that are not set are left out. In place of a secret, and of a value that came from the
    environment, stands its digest (`sha256:...`): the result may be stored and shown.

    Args:
        spec: The spec.
        code: The capability's; left out when `capability.version` stands in for it.
        files: What the files of `capability.files` hold, as a digest, by their name.
    """
    fields = {
        _dotted(path): _sealed(text) if secret or _within(path, spec.from_environment) else text
        for path, text, secret in _leaves(spec, ())
    }
    if code is not None and "capability.version" not in fields:
        fields |= fields_of_code(code)
    for name, digest in (files or {}).items():
        fields[path_of_file(name)] = _canonical(digest)
    return dict(sorted(fields.items()))


def path_of_file(name: str) -> str:
    """Return the path of the field that tells what the file *name* of the capability holds."""
    return _dotted(("capability", "files", name))


def paths_of_files(fields: Mapping[str, str]) -> dict[str, str]:
    """Return those of the paths in *fields* that `path_of_file` gave, by the name of the file."""
    prefix = "capability.files."
    paths = [path for path in fields if path.startswith(f'{prefix}"')]
    return {json.loads(path.removeprefix(prefix)): path for path in paths}


def fields_of_code(code: Code) -> dict[str, str]:
    """Return the fields of *code*: one for each of the user's modules, one for each value."""
    fields = {_dotted(("capability", "code", name)): text for name, text in code.modules.items()}
    for path, text in code.values.items():
        secret = any(map(looks_secret, path)) or redact_uri(text) != text
        steps = (step if step.isdecimal() else _dotted((step,)) for step in path)
        fields[f"capability.code.{'.'.join(steps)}"] = _sealed(text) if secret else text
    return fields


def has_code_before(fields: Mapping[str, str]) -> bool:
    """Tell whether *fields* know the code as one hash, as checkpoints of before do."""
    return _CODE_OF_BEFORE in fields


def field_of_code_before(code: str) -> dict[str, str]:
    """Return the field that checkpoints of before had for the code, whose hash is *code*."""
    return {_CODE_OF_BEFORE: _sealed(_canonical(code))}


def fingerprint(fields: Mapping[str, str]) -> str:
    """Return the SHA-256 of *fields*, in hex. A value and its digest give the same."""
    sealed = sorted((path, _sealed(text)) for path, text in fields.items())
    return hashlib.sha256(_canonical(sealed).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a line for each field that differs, such as `source.limit: 100 -> 200`.

    What is stored as a digest only reads `capability.code: changed`.
    """
    old, new = _of_today(old), _of_today(new)
    lines = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path, "none"), new.get(path, "none")
        if _sealed(before) != _sealed(after):
            lines.append(f"{visible(_named(path))}: {_change(path, before, after)}")
    return lines


def _of_today(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return *fields* with the types of the sink in the one form that they have by now."""
    text = fields.get(_SCHEMA, _SEALED)
    if text.startswith(_SEALED):
        return fields
    return {**fields, _SCHEMA: _canonical(canonical(json.loads(text)))}


def _named(path: str) -> str:
    """Return *path* as it is shown: a file as `capability.code: folder/module.py`."""
    field, quote, rest = path.partition('."')
    is_file = quote and field in _OF_FILES
    return f"{field}: {json.loads(quote[1:] + rest)}" if is_file else path


def _change(path: str, before: str, after: str) -> str:
    if path.startswith(tuple(f'{field}."' for field in _OF_FILES)):
        return _change_of_file(before, after)
    opaque = before.startswith(_SEALED) or after.startswith(_SEALED)
    return "changed" if opaque else f"{_short(before)} -> {_short(after)}"


def _change_of_file(before: str, after: str) -> str:
    if before == "none":
        return "added"
    if after == "none":
        return "removed"
    old, new = json.loads(before), json.loads(after)
    if not isinstance(old, dict) or not isinstance(new, dict):
        return "changed"
    names = sorted((old.keys() | new.keys()) - {WHOLE})
    told = [_change_of_name(name, old, new) for name in names if old.get(name) != new.get(name)]
    if len(told) > _MAX_NAMES:
        told[_MAX_NAMES:] = [f"and {len(told) - _MAX_NAMES} more"]
    return ", ".join(told) or ("the order of its statements changed" if names else "changed")


def _change_of_name(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    if name in old and name in new:
        return f"{name} changed"
    return f"added {name}" if name in new else f"removed {name}"


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
