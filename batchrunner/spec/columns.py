"""Converts each form of `sink.schema` to one: names of columns, and their types as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from batchrunner.formats.arrow_text import MAX_DEPTH, read_type
from batchrunner.formats.arrow_types import ArrowField, ArrowType, check_names, list_of, struct_of

_EXPECTED = (
    "must be a type such as int64, a mapping for the fields of a struct, or a list of one type"
)
_PLACEHOLDER = ArrowType("null")
"""Stands for a type that was refused, so that the rest is checked, too."""

Loc = tuple[int | str, ...]


def column_texts(value: Any) -> Any:
    """Return the columns that *value* declares: a mapping of names to canonical texts of types.

    Args:
        value: A mapping of names to types, a `pyarrow.Schema`, or a pydantic model class. In a
            mapping, a type is a text, a type of pyarrow's, a mapping for a struct, or a list of one
            type for a list. Any other value is returned as it is, for pydantic to refuse.

    Raises:
        ValueError: Parquet cannot hold a type. For a mapping, this is a `ValidationError` that lists
            all such types, each with its path.
    """
    if isinstance(value, type) and issubclass(value, BaseModel):
        from batchrunner.spec.model_columns import columns_of_model

        return _texts(columns_of_model(value))
    if hasattr(value, "__arrow_c_schema__"):
        from batchrunner.spec.pyarrow_columns import columns_of_schema

        return _texts(columns_of_schema(value))
    return _texts(_ColumnParser().columns(value)) if isinstance(value, Mapping) else value


def canonical_types(columns: Any) -> Any:
    """Return the stored *columns*, pairs of name and type, with the canonical text of each type.

    Older versions stored types as the user wrote them, such as `float64` for `double`.
    """
    try:
        return [[name, str(read_type(text))] for name, text in columns]
    except (TypeError, ValueError):  # a later version stored types that this one cannot parse
        return columns


def _texts(columns: Iterable[ArrowField]) -> dict[str, str]:
    columns = list(columns)
    if not columns:
        raise ValueError("must have a column: Parquet cannot keep rows that have none")
    check_names(column.name for column in columns)
    # Parse each type again from its text, so that objects obey the same limits as texts.
    return {column.name: str(read_type(str(column))) for column in columns}


class _ColumnParser:
    """Parses a mapping of columns, and collects its problems, each with its path."""

    def __init__(self) -> None:
        self._problems: list[InitErrorDetails] = []

    def columns(self, types: Mapping[Any, Any]) -> list[ArrowField]:
        columns = self._fields((), types)
        if self._problems:
            raise ValidationError.from_exception_data("schema", self._problems)
        return columns

    def _fields(self, loc: Loc, types: Mapping[Any, Any]) -> list[ArrowField]:
        if not all(isinstance(name, str) for name in types):
            raise ValueError("must have strings as names")
        return [self._field((*loc, name), kind) for name, kind in types.items()]

    def _field(self, loc: Loc, kind: Any) -> ArrowField:
        try:
            return replace(self._parse(loc, kind), name=str(loc[-1]))
        except ValueError as error:
            details = InitErrorDetails(
                type="value_error", loc=loc, input=None, ctx={"error": error}
            )
            self._problems.append(details)
            return ArrowField(str(loc[-1]), _PLACEHOLDER)

    def _parse(self, loc: Loc, kind: Any) -> ArrowField:
        if len(loc) > MAX_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
        if isinstance(kind, Mapping):
            return ArrowField("", struct_of(self._fields(loc, kind)))
        if isinstance(kind, list | tuple) and len(kind) == 1:
            return ArrowField("", list_of(self._field((*loc, 0), kind[0])))
        if isinstance(kind, str):
            return read_type(kind)
        if hasattr(kind, "__arrow_c_schema__"):
            from batchrunner.spec.pyarrow_columns import column_of_type

            return column_of_type(kind)
        raise ValueError(_EXPECTED)
