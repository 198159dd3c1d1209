"""The JSON Schema of a spec file, for editors and for the reference page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchrunner.formats.arrow_names import TYPE_NAMES
from batchrunner.spec.batch_spec import BatchSpec
from batchrunner.spec.model import ShardSpec
from batchrunner.spec.section import Section

_REFERENCE = {"$ref": "#/$defs/reference"}
_TYPE = {"$ref": "#/$defs/type"}
_WORDS = ("description", "default")
_EITHER = {"capability": [["target"], ["stages"]]}
"""Sections that need one of several keys."""

Schema = dict[str, Any]


def spec_schema() -> Schema:
    """Return the JSON Schema (2020-12) of a spec file; it accepts short forms and `${VAR}`."""
    schema = _clean(BatchSpec.model_json_schema())
    sections = schema.pop("$defs")
    kinds = [kind for kind in Section.__subclasses__() if kind.__name__ in sections]
    for section in ("SourceSpec", "SinkSpec"):
        columns = sections[section]["properties"]["schema"]["anyOf"][0]
        columns.update({"additionalProperties": _TYPE, "minProperties": 1})
    for kind in kinds:
        _accept_null(sections[kind.__name__])
    forms = {kind.__name__: _forms(sections[kind.__name__], kind) for kind in kinds}
    capability = schema["properties"]["capability"]
    capability.update(
        capability.pop("anyOf")[0]
    )  # not null: only Python can give the object itself
    reference = {
        "description": "${VAR}, ${VAR:-default} or ${VAR:?message}.",
        "type": "string",
        "pattern": r"\$\{",
    }
    _accept_null(schema, but=("capability",))
    fields = schema["properties"]
    del schema["required"]
    sections_of = {
        name: forms[_section(field)] for name, field in fields.items() if _section(field) in forms
    }
    needed = {name: _taken_required(form) for name, form in sections_of.items()}
    requirements = {name: [keys] for name, keys in needed.items() if keys} | _EITHER
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:batchrunner:spec:1",
        "title": "batchrunner spec",
        **schema,
        "properties": {**_made_of(), **fields},
        "if": {"anyOf": [{"required": [key]} for key in _made_of()]},
        # With them, what is required may stand in another file, or in a profile.
        "else": {"required": ["capability", "source", "sink"], **_requirements(requirements)},
        "$defs": {
            **forms,
            "part": {
                "description": "A part of a spec, which counts over the rest of it.",
                "anyOf": [
                    {"type": "object", "additionalProperties": False, "properties": fields},
                    {"type": "null"},
                ],
            },
            "type": _type(),
            "reference": reference,
        },
    }


def _accept_null(section: Schema, *, but: Sequence[str] = ()) -> None:
    """Let each field of *section* that has a default be null, which brings that back."""
    fields = section["properties"]
    for name in fields.keys() - {*section.get("required", ()), *but}:
        words = {key: fields[name][key] for key in _WORDS if key in fields[name]}
        rest = {key: value for key, value in fields[name].items() if key not in words}
        fields[name] = {**words, **_any_of([rest, {"type": "null"}])}


def _made_of() -> Schema:
    """Return the keys that are no fields of the spec, but say what it is made of."""
    part = {"$ref": "#/$defs/part"}
    return {
        "extends": {
            "description": "A spec whose values count where this one has none: a path, from the "
            "folder of this file. Mappings are merged, lists and all else are replaced.",
            "type": "string",
            "minLength": 1,
        },
        "profiles": {
            "description": "Parts of a spec, by name: `--profile NAME` makes one count over the rest.",
            "type": "object",
            "additionalProperties": part,
        },
    }


def _taken_required(form: Schema) -> list[str]:
    """Remove and return the keys that a section requires where it is written out."""
    sections = [form, *form.get("anyOf", ())]
    return [key for section in sections for key in section.pop("required", ())]


def _requirements(needed: Mapping[str, list[list[str]]]) -> Schema:
    """Return what the sections require of a spec that is one file alone: one of the lists of keys."""
    return {
        "properties": {
            name: {"anyOf": [{"not": {"type": "object"}}, *({"required": keys} for keys in either)]}
            for name, either in needed.items()
        }
    }


def _section(field: Schema) -> str:
    """Return the name of the section that *field* refers to, or ""."""
    references = (option.get("$ref", "") for option in [field, *field.get("anyOf", ())])
    return next((r.rpartition("/")[2] for r in references if r), "")


def _type() -> Schema:
    """Return the schema of a column's type.

    Of a text it checks the first word only, since a regular expression cannot count brackets.
    """
    names = "|".join(sorted(TYPE_NAMES, key=lambda name: (-len(name), name)))
    return {
        "description": "A type as Arrow prints it, a mapping for the fields of a struct, or a list of "
        "one type.",
        "anyOf": [
            {"type": "string", "pattern": rf"^\s*({names})(\s*[<(\[]|\s+not\s+null\s*$|\s*$)"},
            {"type": "object", "additionalProperties": _TYPE, "minProperties": 1},
            {"type": "array", "items": _TYPE, "minItems": 1, "maxItems": 1},
            _REFERENCE,
        ],
    }


def _forms(written_out: Schema, kind: type[Section]) -> Schema:
    """Return the schema of a section that also accepts its short form or, without one, null."""
    if kind.stands_for:
        names = dict.fromkeys(filter(None, (kind.stands_for, kind.stands_for_a_list)))
        return _any_of([*(_bare(written_out["properties"][name]) for name in names), written_out])
    # `execution:` with nothing behind it, for example with all its lines commented out.
    return written_out if kind is ShardSpec else _any_of([written_out, {"type": "null"}])


def _bare(field: Schema) -> Schema:
    """Return the schema of a value that stands for *field* alone: what is null says nothing."""
    bare = {key: value for key, value in field.items() if key not in _WORDS}
    options = [option for option in bare.pop("anyOf", []) if option != {"type": "null"}]
    return {**bare, **(_any_of(options) if len(options) > 1 else options[0] if options else {})}


def _clean(node: Any) -> Any:
    """Return *node* without pydantic's titles; let it accept `${VAR}` where its type would not."""
    if isinstance(node, list):
        return [_clean(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _clean(inner) for key, inner in node.items() if not _is_noise(key, inner)}
    options = [*schema.pop("anyOf", []), *schema.pop("oneOf", [])]
    if options:
        return {**schema, **_any_of(options)}
    if not _refuses_references(schema):
        return schema
    words = {key: schema.pop(key) for key in _WORDS if key in schema}
    return {**words, **_any_of([schema, _REFERENCE])}


def _is_noise(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)


def _refuses_references(schema: Schema) -> bool:
    if schema.get("type") in {"integer", "number", "boolean"}:
        return "const" not in schema
    return schema.get("type") == "string" and bool({"enum", "pattern"} & schema.keys())


def _any_of(options: list[Schema]) -> Schema:
    flat: list[Schema] = []
    for option in options:
        for member in option["anyOf"] if set(option) == {"anyOf"} else [option]:
            if member not in flat:
                flat.append(member)
    return {"anyOf": flat}
