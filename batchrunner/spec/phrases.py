"""What pydantic found wrong, in words that say what to write instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from batchrunner.spec.secrets import redact_uri

_PHRASES = {
    "bool_": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be finite",
    "float_": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_": "must be a whole number",
    "literal_error": "must be {expected}",
    "model_": "must be a mapping",
    "string_type": "must be a string: put it in quotes",
    "string_unicode": "must be Unicode text",
    "too_long": "has too many items",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
_BY_LENGTH = sorted(_PHRASES, key=len, reverse=True)
_NOT_WRITTEN = {"<one>", "<several>", "<fixed>", "<range>", "[key]"}
"""Steps of pydantic's paths that are no keys: our tags of a union's members, and its own."""
_MAX_KEY = 60

Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing pydantic refused.

    Attributes:
        loc: Keys and indices from the top to the culprit, or to the section that lacks a key.
        at: "value", or "key" when the key is the culprit, or "section" when it lacks a key.
        message: Says where and what; never holds a value.
    """

    loc: Loc
    at: str
    message: str


def complaints(error: ValidationError, model: type[BaseModel]) -> Iterator[Complaint]:
    """Yield what *error* holds against the values of *model*."""
    for details in error.errors(include_url=False, include_input=False):
        kind, loc = details["type"], details["loc"]
        if kind == "missing" and isinstance(loc[-1], int):
            yield _complaint(_written(loc[:-1]), "value", "has too few items")
        elif kind == "missing":
            missing = f"the key {_quoted(loc[-1])} is missing"
            yield _complaint(_written(loc[:-1]), "section", missing)
        elif kind == "extra_forbidden":
            where = _written(loc[:-1])
            found = _complaint(where, "key", _unknown(str(loc[-1]), where, model))
            yield replace(found, loc=(*where, loc[-1]))
        else:
            yield _complaint(_written(loc), "value", _phrase(kind, details))


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model among the types of *annotation*, or None."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _written(loc: Loc) -> Loc:
    return tuple(step for step in loc if step not in _NOT_WRITTEN)


def _complaint(where: Loc, at: str, what: str) -> Complaint:
    path = ".".join(str(step)[:_MAX_KEY] for step in where)
    return Complaint(where, at, f"{path}: {what}" if path else what)


def _phrase(kind: str, details: Any) -> str:
    known = next((known for known in _BY_LENGTH if kind.startswith(known)), None)
    if known is None:
        return str(details["msg"])
    return _PHRASES[known].format_map({**details.get("ctx", {})})


def _unknown(key: str, parents: Loc, model: type[BaseModel]) -> str:
    import difflib  # only those who err pay for it

    section: type[BaseModel] | None = model
    for parent in parents:
        section = section and section_of(_fields(section).get(str(parent)))
    known = list(_fields(section)) if section else []
    nearest = difflib.get_close_matches(key.lower()[:_MAX_KEY], known, n=1)
    elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == key]
    hint = f"known here: {', '.join(known)}"
    if nearest or elsewhere:
        hint = f"did you mean {_quoted([*elsewhere, *nearest][0])}?"
    return f"unknown key {_quoted(key)}; {hint}"


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _paths(model: type[BaseModel]) -> Iterator[str]:
    for name, annotation in _fields(model).items():
        yield name
        if section := section_of(annotation):
            yield from (f"{name}.{path}" for path in _paths(section))


def _quoted(key: object) -> str:
    return json.dumps(redact_uri(str(key))[:_MAX_KEY], ensure_ascii=False)
