"""The columns of a Parquet sink, from its declaration or the last schema that is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint.damage import schema_from_bytes
from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(records: Storage, declared: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return name and type of each column, as a manifest has them; none when none is known.

    Raises:
        DamagedOutputError: The recorded schema cannot be read.
    """
    schema = _declared(declared) if declared else _recorded(records)
    fields = [] if schema is None else list(schema)
    return [{"name": field.name, "type": str(field.type)} for field in fields]


def _declared(declared: Mapping[str, Any]) -> pa.Schema:
    from batchrunner.formats.declared import as_written, declared_schema

    return as_written(declared_schema(declared))


def _recorded(records: Storage) -> pa.Schema | None:
    keys = ["schema.arrow", *(entry.key for entry in records.list("schema"))]
    try:
        return schema_from_bytes(records.get(keys[-1]), key=keys[-1])
    except ObjectNotFoundError:
        return None
