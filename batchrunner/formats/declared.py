"""Types of columns as `sink.schema` names them."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from batchrunner.formats.arrays import SchemaError


def declared_schema(types: Mapping[str, object]) -> pa.Schema:
    """Return the schema that `sink.schema` declares.

    Raises:
        SchemaError: Arrow knows no type of that name.
    """
    return pa.schema([(name, _type_named(name, str(alias))) for name, alias in types.items()])


def _type_named(column: str, alias: str) -> pa.DataType:
    element = alias.removeprefix("list<").removesuffix(">")
    try:
        return (
            pa.list_(pa.type_for_alias(element)) if element != alias else pa.type_for_alias(alias)
        )
    except ValueError as error:
        raise SchemaError(
            f"sink.schema: column {column!r} has the type {alias!r}; known are string, int64, double"
        ) from error
