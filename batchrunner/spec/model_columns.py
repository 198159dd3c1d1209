"""Converts a pydantic model to columns: Arrow types for what its `model_dump` returns.

Only types count. Lengths, patterns and ranges are for the capability to check by building the model, and
every column may be null, as with types written by hand.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pydantic
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from batchrunner.formats.arrow_text import read_type
from batchrunner.formats.arrow_types import (
    DECIMALS,
    ArrowField,
    ArrowType,
    decimal_of,
    list_of,
    map_of,
    struct_of,
)

_TEXTS: Final[Mapping[Any, str]] = {
    str: "string",
    int: "int64",
    float: "double",
    bool: "bool",
    bytes: "binary",
    dt.date: "date32",
    dt.datetime: "timestamp[us]",
    dt.time: "time64[us]",
    dt.timedelta: "duration[us]",
    uuid.UUID: "uuid",
    pydantic.NaiveDatetime: "timestamp[us]",
    pydantic.AwareDatetime: "timestamp[us, tz=UTC]",
    pydantic.PastDate: "date32",
    pydantic.FutureDate: "date32",
}
_OF_VALUES: Final = {bool, int, str}
_INSTEAD = "declare the columns as a mapping or as a pyarrow.Schema"


@dataclass(frozen=True, slots=True)
class _FieldPath:
    """The path to a field, for errors, and the models on the way, to detect recursion."""

    path: str
    models: tuple[type[BaseModel], ...] = ()

    def refusal(self, what: str) -> ValueError:
        return ValueError(f"{self.path}: {what}")


def columns_of_model(model: type[BaseModel]) -> list[ArrowField]:
    """Return the columns of *model*, under the names that `model_dump(by_alias=True)` gives.

    Raises:
        ValueError: A field has no single Arrow type; the error names it, as `Model.field`.
    """
    return _fields(model, _FieldPath(model.__name__))


def _fields(model: type[BaseModel], at: _FieldPath) -> list[ArrowField]:
    if model in at.models:
        raise at.refusal(
            f"{model.__name__} holds itself, and no type of Arrow's does: keep it as JSON, in a str"
        )
    if issubclass(model, pydantic.RootModel):
        raise at.refusal(f"{model.__name__} has no fields, but one root: use a BaseModel")
    try:
        model.model_rebuild()  # resolves names of models that were defined after it
    except NameError as error:
        raise at.refusal(f"{error.name} is not defined yet: define it before the spec") from error
    inner = (*at.models, model)
    return [
        ArrowField(name, _type(annotation, metadata, _FieldPath(f"{at.path}.{name}", inner)))
        for name, annotation, metadata in _dumped(model)
    ]


def _dumped(model: type[BaseModel]) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    for name, field in model.model_fields.items():
        if not field.exclude:
            yield field.serialization_alias or field.alias or name, field.annotation, (field,)
    for name, computed in model.model_computed_fields.items():
        yield computed.alias or name, computed.return_type, ()


def _type(kind: Any, metadata: tuple[Any, ...], at: _FieldPath) -> ArrowType:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _type(inner[0], (*metadata, *inner[1:]), at)
    if origin is typing.Literal:
        return _of_values(inner, at)
    if origin in {typing.Union, types.UnionType}:
        return _of_union(inner, metadata, at)
    if origin is not None:
        return _generic(origin, inner, at)
    return _bare(kind, metadata, at)


def _bare(kind: Any, metadata: tuple[Any, ...], at: _FieldPath) -> ArrowType:
    if kind in _TEXTS:
        return read_type(_TEXTS[kind]).type
    if kind is decimal.Decimal:
        return _decimal(metadata, at)
    if meant := getattr(kind, "__value__", None) or getattr(kind, "__supertype__", None):
        return _type(meant, metadata, at)  # `type X = ...` and NewType
    if isinstance(kind, type):
        return _of_class(kind, at)
    raise at.refusal(_no_type(kind))


def _of_class(kind: type, at: _FieldPath) -> ArrowType:
    if issubclass(kind, pydantic.RootModel):
        root = kind.model_fields["root"]
        return _type(root.annotation, (root,), at)
    if issubclass(kind, BaseModel):
        return struct_of(_fields(kind, at))
    if issubclass(kind, enum.Enum):
        return _of_values([member.value for member in kind], at)
    raise at.refusal(_no_type(kind))


def _of_union(members: tuple[Any, ...], metadata: tuple[Any, ...], at: _FieldPath) -> ArrowType:
    # Without None, since every column may be null.
    some = [member for member in members if member is not type(None)]
    kinds = {_type(member, metadata, at) for member in some}
    if len(kinds) > 1:
        names = ", ".join(map(_named, some))
        raise at.refusal(f"one of {names}: a column has one type; {_INSTEAD}")
    return kinds.pop()


def _of_values(values: Sequence[Any], at: _FieldPath) -> ArrowType:
    kinds = {type(value.value if isinstance(value, enum.Enum) else value) for value in values}
    kinds -= {type(None)}
    if len(kinds) != 1 or not kinds <= _OF_VALUES:
        raise at.refusal("its values must be all strings, all whole numbers, or all booleans")
    return read_type(_TEXTS[kinds.pop()]).type


def _generic(origin: Any, inner: tuple[Any, ...], at: _FieldPath) -> ArrowType:
    if origin in {dict, Mapping} and len(inner) == 2:
        key, value = (_type(part, (), at) for part in inner)
        return map_of(key, value)
    if origin in {list, Sequence} and inner:
        return list_of(_type(inner[0], (), at))
    if origin is tuple:
        if len(inner) == 2 and inner[1] is ...:
            return list_of(_type(inner[0], (), at))
        raise at.refusal("a tuple of a fixed length; write tuple[T, ...] or list[T]")
    if origin in {set, frozenset}:
        raise at.refusal("a set has no order, and a column keeps one; write list[T]")
    raise at.refusal(_no_type(origin))


def _decimal(metadata: tuple[Any, ...], at: _FieldPath) -> ArrowType:
    digits, scale = _limit("max_digits", metadata), _limit("decimal_places", metadata)
    if digits is None or scale is None:
        raise at.refusal("Decimal needs Field(max_digits=..., decimal_places=...)")
    try:
        return decimal_of(
            "decimal128" if digits <= DECIMALS["decimal128"] else "decimal256", digits, scale
        )
    except ValueError as error:
        raise at.refusal(str(error)) from error


def _limit(name: str, metadata: tuple[Any, ...]) -> int | None:
    """Return the last value of constraint *name* in `Field(...)` or `Annotated`; else None."""
    constraints = [
        part for one in metadata for part in (one.metadata if isinstance(one, FieldInfo) else [one])
    ]
    limits = [getattr(one, name, None) for one in constraints]
    return next((limit for limit in reversed(limits) if limit is not None), None)


def _named(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


def _no_type(kind: Any) -> str:
    return f"no type of Arrow's for {_named(kind)}; {_INSTEAD}"
