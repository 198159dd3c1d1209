"""What `sink.schema` may be given as, brought to one form: the name of each column and its type's text."""

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
_UNKNOWN = ArrowType("null")
"""Stands for a type that was refused, so that the rest is read, too."""

Loc = tuple[int | str, ...]


def column_texts(value: Any) -> Any:
    """Return the columns that *value* declares as a mapping of names to texts, each in its one form.

    Args:
        value: A mapping of names to types, a `pyarrow.Schema`, or a pydantic model class. A type is
            its text, a type of pyarrow's, a mapping for a struct, or a list of one for a list.
            Anything else is returned as it is.

    Raises:
        ValueError: A type is none that Parquet can hold; a `ValidationError` with all of them where
            each has a place of its own.
    """
    if isinstance(value, type) and issubclass(value, BaseModel):
        from batchrunner.spec.model_columns import columns_of_model

        return _texts(columns_of_model(value))
    if hasattr(value, "__arrow_c_schema__"):
        from batchrunner.spec.pyarrow_columns import columns_of_schema

        return _texts(columns_of_schema(value))
    return _texts(_Reading().columns(value)) if isinstance(value, Mapping) else value


def canonical(columns: Any) -> Any:
    """Return *columns*, pairs of a name and its type's text as they were stored, in the form of today.

    Types were once stored as they were written: `float64` for `double`.
    """
    try:
        return [[name, str(read_type(text))] for name, text in columns]
    except (TypeError, ValueError):  # of another version than this
        return columns


def _texts(columns: Iterable[ArrowField]) -> dict[str, str]:
    columns = list(columns)
    if not columns:
        raise ValueError("must have a column: Parquet cannot keep rows that have none")
    check_names(column.name for column in columns)
    # Read again, because what came as objects is held to the same limits as text.
    return {column.name: str(read_type(str(column))) for column in columns}


class _Reading:
    """Reads a mapping of columns, and keeps what is wrong with it, each with its place."""

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
            return replace(self._read(loc, kind), name=str(loc[-1]))
        except ValueError as error:
            details = InitErrorDetails(
                type="value_error", loc=loc, input=None, ctx={"error": error}
            )
            self._problems.append(details)
            return ArrowField(str(loc[-1]), _UNKNOWN)

    def _read(self, loc: Loc, kind: Any) -> ArrowField:
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
