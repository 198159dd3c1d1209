"""The section `hooks` of a spec: which hooks to call, and the options of each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from batchrunner.hooks.registry import check_name, check_options, hook_schemas
from batchrunner.spec.fields import Kwargs


def _known(name: str) -> str:
    """Refuse an unknown hook, without loading one of the user's."""
    check_name(name)
    return name


def _no_options(value: object) -> object:
    return {} if value is None else value  # `my_hook:` with nothing behind it


def _checked(hooks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for name, options in hooks.items():
        check_options(name, options)
    return hooks


def _schema(schema: dict[str, Any]) -> None:
    schema.pop("propertyNames", None)
    schema["properties"] = {name: _or_null(options) for name, options in hook_schemas().items()}
    schema["additionalProperties"] = _or_null({})


def _or_null(options: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "object", **options}, {"type": "null"}]}


Hooks = Annotated[
    dict[
        Annotated[str, AfterValidator(_known)],
        Annotated[Kwargs, BeforeValidator(_no_options)],
    ],
    AfterValidator(_checked),
    Field(json_schema_extra=_schema),
]
