"""The fingerprint of a run, over all that decides its output: a run resumes only if it is equal."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping

from batchrunner.capability import Code
from batchrunner.capability.syntax import WHOLE
from batchrunner.spec.batch_spec import BatchSpec
from batchrunner.spec.columns import canonical_types
from batchrunner.spec.diagnosis import Loc, visible
from batchrunner.spec.secrets import looks_secret, redact_uri, redacted
from batchrunner.spec.section import ADDED, NEUTRAL, ORDERED, Section

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DIGEST = "sha256:"
_MAX_VALUE = 120
_MAX_NAMES = 8
_SCHEMA = "sink.schema"
_OF_FILES = ("capability.code", "capability.files")

_LEGACY_CODE = "capability.code"
"""The one field for the code in older checkpoints: a hash of the capability's module."""


def decisive_fields(
    spec: BatchSpec, *, code: Code | None, files: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the fields that decide the output: their values as JSON, by dotted path, sorted.

    Fields that are not set are left out. A secret, or a value from the environment, is replaced by
    its digest (`sha256:...`), so the result may be stored and shown.

    Args:
        spec: The spec.
        code: The capability's code; left out when `capability.version` stands in for it.
        files: Digests of the files of `capability.files`, by their name.
    """
    fields = {
        _dotted(path): _digest(text) if secret or _within(path, spec.from_environment) else text
        for path, text, secret in _leaves(spec, ())
    }
    if code is not None and "capability.version" not in fields:
        fields |= fields_of_code(code)
    for name, digest in (files or {}).items():
        fields[path_of_file(name)] = _canonical(digest)
    return dict(sorted(fields.items()))


def path_of_file(name: str) -> str:
    """Return the path of the field with the digest of the capability's file *name*."""
    return _dotted(("capability", "files", name))


def paths_of_files(fields: Mapping[str, str]) -> dict[str, str]:
    """Return, by name of file, the paths in *fields* of the digests of the capability's files."""
    prefix = "capability.files."
    paths = [path for path in fields if path.startswith(f'{prefix}"')]
    return {json.loads(path.removeprefix(prefix)): path for path in paths}


def fields_of_code(code: Code) -> dict[str, str]:
    """Return the fields of *code*: one for each of the user's modules, one for each value."""
    fields = {_dotted(("capability", "code", name)): text for name, text in code.modules.items()}
    for path, text in code.values.items():
        secret = any(map(looks_secret, path)) or redact_uri(text) != text
        steps = (step if step.isdecimal() else _dotted((step,)) for step in path)
        fields[f"capability.code.{'.'.join(steps)}"] = _digest(text) if secret else text
    return fields


def has_legacy_code(fields: Mapping[str, str]) -> bool:
    """Return whether *fields* hold the code as one hash, as older checkpoints do."""
    return _LEGACY_CODE in fields


def legacy_code_field(code: str) -> dict[str, str]:
    """Return the field that older checkpoints have for the code whose legacy hash is *code*."""
    return {_LEGACY_CODE: _digest(_canonical(code))}


def fingerprint(fields: Mapping[str, str]) -> str:
    """Return the SHA-256 of *fields*, in hex. A value and its digest give the same result."""
    # Hash digests only, so that moving a value into an environment variable is no change.
    digests = sorted((path, _digest(text)) for path, text in fields.items())
    return hashlib.sha256(_canonical(digests).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a line for each field that differs, such as `source.limit: 100 -> 200`.

    A field that is stored as a digest reads `capability.code: changed`.
    """
    old, new = _with_canonical_types(old), _with_canonical_types(new)
    lines = []
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path, "none"), new.get(path, "none")
        if _digest(before) != _digest(after):
            lines.append(f"{visible(_named(path))}: {_change(path, before, after)}")
    return lines


def _with_canonical_types(fields: Mapping[str, str]) -> Mapping[str, str]:
    """Return *fields* with the types of `sink.schema` in their canonical text."""
    text = fields.get(_SCHEMA, _DIGEST)
    if text.startswith(_DIGEST):
        return fields
    return {**fields, _SCHEMA: _canonical(canonical_types(json.loads(text)))}


def _named(path: str) -> str:
    """Return *path* as messages show it: a file as `capability.code: folder/module.py`."""
    field, quote, rest = path.partition('."')
    is_file = quote and field in _OF_FILES
    return f"{field}: {json.loads(quote[1:] + rest)}" if is_file else path


def _change(path: str, before: str, after: str) -> str:
    if path.startswith(tuple(f'{field}."' for field in _OF_FILES)):
        return _change_of_file(before, after)
    opaque = before.startswith(_DIGEST) or after.startswith(_DIGEST)
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
    changes = [_change_of_name(name, old, new) for name in names if old.get(name) != new.get(name)]
    if len(changes) > _MAX_NAMES:
        changes[_MAX_NAMES:] = [f"and {len(changes) - _MAX_NAMES} more"]
    # When no name differs, the hash of the whole module does: it also covers the order.
    return ", ".join(changes) or ("the order of its statements changed" if names else "changed")


def _change_of_name(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    if name in old and name in new:
        return f"{name} changed"
    return f"added {name}" if name in new else f"removed {name}"


def _leaves(section: Section, path: Loc) -> Iterator[tuple[Loc, str, bool]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        # Without fields that are not set, so that a new field leaves stored fingerprints valid.
        if NEUTRAL in field.metadata or value is None:
            continue
        if ADDED in field.metadata and value == field.default:
            continue
        inner = (*path, field.alias or name)
        if isinstance(value, Section):
            yield from _leaves(value, inner)
        elif _is_sections(value):
            for number, one in enumerate(value):
                yield from _leaves(one, (*inner, number))
        elif ORDERED in field.metadata:
            # As pairs, since `_canonical` sorts a mapping.
            yield inner, _canonical(list(value.items())), False
        elif value != {}:
            yield from _items(value, inner, secret=False)


def _is_sections(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Section)


def _items(value: object, path: Loc, *, secret: bool) -> Iterator[tuple[Loc, str, bool]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _items(inner, (*path, key), secret=secret or looks_secret(key))
    else:
        text = _canonical(value)
        yield path, text, secret or _canonical(redacted(value)) != text


def _within(path: Loc, hidden: frozenset[Loc]) -> bool:
    """Return whether *path* equals a path in *hidden*, or is above or below one."""
    return any(path[: len(other)] == other[: len(path)] for other in hidden)


def _dotted(path: Loc) -> str:
    return ".".join(str(s) if _BARE.fullmatch(str(s)) else _canonical(s) for s in path)


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _digest(text: str) -> str:
    if text.startswith(_DIGEST):  # it is a digest already: of a secret, no more is stored
        return text
    return _DIGEST + hashlib.sha256(text.encode()).hexdigest()


def _short(text: str) -> str:
    text = visible(text)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"
