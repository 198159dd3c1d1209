"""Arrow's types as plain trees, and their canonical text, so that checking a spec needs no pyarrow.

The text is what Arrow prints, with two exceptions. A field name that could be misread stands in quotes,
and lists do not name their elements, since Arrow ignores that name when it compares lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

INTEGERS: Final = frozenset(
    f"{sign}int{bits}" for sign in ("", "u") for bits in ("8", "16", "32", "64")
)
FLOATS: Final = frozenset({"halffloat", "float", "double"})
TEXTS: Final = frozenset({"string", "large_string", "binary", "large_binary"})
VIEWS: Final = frozenset({"string_view", "binary_view"})
PLAIN: Final = frozenset({"null", "bool", *INTEGERS, *FLOATS, *TEXTS, *VIEWS})
"""Types without parameters."""

UNITS: Final = {
    "date32": ("day",),
    "date64": ("ms",),
    "time32": ("s", "ms"),
    "time64": ("us", "ns"),
    "timestamp": ("s", "ms", "us", "ns"),
    "duration": ("s", "ms", "us", "ns"),
}
DECIMALS: Final = {"decimal32": 9, "decimal64": 18, "decimal128": 38, "decimal256": 76}
"""Decimal types, and the most digits that each holds."""

LISTS: Final = frozenset({"list", "large_list", "list_view", "large_list_view", "fixed_size_list"})
NESTED: Final = frozenset({*LISTS, "struct", "map", "dictionary"})
EXTENSIONS: Final = frozenset({"uuid", "json", "bool8"})
NOT_IN_PARQUET: Final = {
    "month_interval": "intervals",
    "day_time_interval": "intervals",
    "month_day_nano_interval": "intervals",
    "dense_union": "unions",
    "sparse_union": "unions",
    "run_end_encoded": "run-end encoded values",
}

_CLEAR_NAME = re.compile(r'[^\s:<>,"\x00-\x1f](?:[^:<>,"\x00-\x1f]*[^\s:<>,"\x00-\x1f])?')


@dataclass(frozen=True, slots=True)
class ArrowType:
    """An Arrow type.

    Attributes:
        name: As Arrow prints it, without its parameters: "timestamp", "list".
        of: Its parameters: unit and zone; precision and scale; the size of a fixed-size type; the name
            of an extension type; 1 for a map with sorted keys or an ordered dictionary, else 0.
        fields: The fields of a struct, the element of a list, "key" and "value" of a map, "values" and
            "indices" of a dictionary.
    """

    name: str
    of: tuple[str | int, ...] = ()
    fields: tuple[ArrowField, ...] = ()

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class ArrowField:
    """A column, or a field of a nested type."""

    name: str
    type: ArrowType
    nullable: bool = True

    def __str__(self) -> str:
        """Return the type, with `not null` unless nullable: a column's text in `sink.schema`."""
        return str(self.type) if self.nullable else f"{self.type} not null"


def list_of(element: ArrowField | ArrowType, *, kind: str = "list", size: int = 0) -> ArrowType:
    """Return the type of lists of *element*; *size* counts only for a `fixed_size_list`.

    Raises:
        ValueError: The size of a `fixed_size_list` is below 1: Arrow cannot make such arrays.
    """
    field = _as_field("item", element)
    if kind == "fixed_size_list" and size < 1:
        raise ValueError("the size of a fixed_size_list is at least 1")
    return ArrowType(kind, (size,) if kind == "fixed_size_list" else (), (field,))


def map_of(key: ArrowType, value: ArrowField | ArrowType, *, keys_sorted: int = 0) -> ArrowType:
    """Return the type of maps from *key* to *value*.

    Raises:
        ValueError: The key has the type null.
    """
    if key.name == "null":
        raise ValueError("the keys of a map cannot be null")
    fields = (ArrowField("key", key, nullable=False), _as_field("value", value))
    return ArrowType("map", (keys_sorted,), fields)


def struct_of(fields: Iterable[ArrowField]) -> ArrowType:
    """Return the type of structs of *fields*.

    Raises:
        ValueError: There are no fields, which Parquet cannot store, or two have the same name.
    """
    fields = tuple(fields)
    if not fields:
        raise ValueError("Parquet has no type for a struct without fields")
    check_names(field.name for field in fields)
    return ArrowType("struct", (), fields)


def dictionary_of(values: ArrowType, indices: ArrowType, *, ordered: int = 0) -> ArrowType:
    """Return the type of dictionary-encoded *values*.

    Raises:
        ValueError: Parquet has no dictionary of such values, or the indices are no integers.
    """
    if indices.name not in INTEGERS:
        raise ValueError("the indices of a dictionary must be of an integer type, such as int32")
    if values.name in {*NESTED, *VIEWS, "extension"}:
        raise ValueError(f"Parquet has no type for a dictionary of {values.name}")
    fields = (ArrowField("values", values), ArrowField("indices", indices))
    return ArrowType("dictionary", (ordered,), fields)


def decimal_of(name: str, precision: int, scale: int) -> ArrowType:
    """Return a decimal type.

    Raises:
        ValueError: The precision is too high for *name*, or Parquet does not allow the scale.
    """
    most = DECIMALS[name]
    if not 1 <= precision <= most:
        raise ValueError(f"{name}({precision}, {scale}): the precision must be from 1 to {most}")
    if not 0 <= scale <= precision:
        raise ValueError(
            f"{name}({precision}, {scale}): the scale must be from 0 to the precision, {precision}"
        )
    return ArrowType(name, (precision, scale))


def check_names(names: Iterable[str]) -> None:
    """Check that the *names* of fields differ.

    Raises:
        ValueError: Two are the same.
    """
    earlier: set[str] = set()
    for name in names:
        if name in earlier:
            raise ValueError(f"two fields are called {quoted(name)}: rename one")
        earlier.add(name)


def quoted(name: str) -> str:
    """Return *name* in quotes, as a JSON string."""
    return json.dumps(name, ensure_ascii=False)


def _as_field(name: str, inner: ArrowField | ArrowType) -> ArrowField:
    if isinstance(inner, ArrowType):
        return ArrowField(name, inner)
    return ArrowField(name, inner.type, nullable=inner.nullable)


def _text(kind: ArrowType) -> str:
    inner = ", ".join(map(str, kind.fields))
    first = kind.of[0] if kind.of else ""
    if kind.name == "struct":
        return f"struct<{', '.join(f'{_shown(f.name)}: {f}' for f in kind.fields)}>"
    if kind.name == "map":
        return f"map<{kind.fields[0].type}, {kind.fields[1]}{', keys_sorted' if first else ''}>"
    if kind.name == "dictionary":
        values, indices = kind.fields
        return f"dictionary<values={values}, indices={indices}, ordered={first}>"
    if kind.name == "extension":
        return f"extension<arrow.{first}>"
    if kind.name in LISTS:
        return f"{kind.name}<{inner}>" + (f"[{first}]" if kind.of else "")
    return kind.name + _arguments(kind)


def _arguments(kind: ArrowType) -> str:
    if kind.name in DECIMALS:
        return f"({', '.join(map(str, kind.of))})"
    if len(kind.of) > 1:
        return f"[{kind.of[0]}, tz={kind.of[1]}]"
    return f"[{kind.of[0]}]" if kind.of else ""


def _shown(name: str) -> str:
    return name if _CLEAR_NAME.fullmatch(name) else quoted(name)
