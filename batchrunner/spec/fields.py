"""Types of the spec's fields: what each accepts, what it becomes, and its JSON Schema."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
)

from batchrunner.formats.registry import BUILT_IN, format_names, is_known
from batchrunner.spec.section import NEUTRAL
from batchrunner.storage.schemes import absolute_uri

# For the JSON Schema, where they only help an editor; the checks below are stricter.
DURATION_PATTERN = (
    r"^(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s?)?(\d+(\.\d+)?ms)?$"
)
SIZE_PATTERN = r"^\d+(\.\d+)?( ?([kKmMgGtT][iI]?)?[bB])?$"

# Of bounded length, so that no text becomes a number of a million digits.
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m", "s", "ms")))
_SECONDS = tuple(Fraction(unit) for unit in ("86400", "3600", "60", "1", "0.001"))
_SIZE = re.compile(rf"{_NUMBER} ?(?:([kmgt])(i?))?b", re.IGNORECASE)
_PLAIN = re.compile(_NUMBER)
_MAX = 1e15

MOST: Final = 2**60
"""Largest size in bytes, and largest count: sums of them still fit into 64 bits."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_TARGET = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
_PATH = r"^[^\s.]+(\.[^\s.]+)*$"
_MAX_DEPTH = 50
_RAYS_OWN = {
    "CPU": "num_cpus",
    "GPU": "num_gpus",
    "memory": "memory",
    "object_store_memory": "none: no row passes through the object store",
}
"""Resources that Ray refuses as custom ones, and the spec's field for each."""
_PERCENT = r"^\d+(\.\d+)?%$"

UNBRACED: Final = "unbraced"
"""Key in pydantic's context: maps each value with a `$NAME` without braces to that name."""


def _known_format(name: str) -> str:
    """Refuse an unknown format, without loading any: `validate` runs no code of the user's."""
    if not is_known(name):
        ours = " or ".join(map(repr, BUILT_IN))
        raise ValueError(
            f'must be {ours}, a format that is registered, or "package.module:Class" of one'
        )
    return name


def _list_formats(schema: dict[str, Any]) -> None:
    del schema["type"]
    target = {"type": "string", "pattern": _TARGET}
    schema["anyOf"] = [{"enum": format_names(), "type": "string"}, target]


def duration_in_seconds(value: object) -> float:
    """Return a duration in seconds: of "3h50m", "90s", "2d", "1.5h", "250ms" or a number of seconds.

    Raises:
        ValueError: It is none of these, or not above zero.
    """
    seconds = _number_of_text(value)
    if seconds is None and isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        parts = zip(match.groups(), _SECONDS, strict=True)
        # Fractions, so that 1.1h and 66m are the same duration.
        seconds = sum((Fraction(number) * unit for number, unit in parts if number), Fraction())
    if seconds is None or seconds <= 0:
        raise ValueError('must be a duration above zero, such as "3h50m", "90s", "250ms" or 600')
    return float(seconds)


def size_in_bytes(value: object) -> int:
    """Return a size in bytes: of "64MiB" (powers of 1024), "1GB" (powers of 1000) or a number.

    Raises:
        ValueError: It is none of these, or not a whole number of bytes, at least 1 and at most `MOST`.
    """
    size = _number_of_text(value)
    if size is None and isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number, prefix, binary = match.groups()
        power = " kmgt".index((prefix or " ").lower())
        size = Fraction(number) * (1024 if binary else 1000) ** power
    if size is None or not 1 <= size <= MOST or size.denominator != 1:
        raise ValueError('must be a size in bytes, such as "64MiB", "1GB" or 1048576')
    return int(size)


def _number_of_text(value: object) -> Fraction | None:
    if isinstance(value, str) and _PLAIN.fullmatch(value):  # `${VAR}` is replaced by a text
        return Fraction(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Fraction(value) if abs(value) < _MAX else None  # NaN is not below anything


def _path_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _no_bool(value: object) -> object:
    # `True` is an int in Python, and pydantic would take it for 1.
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


def _countable(value: int) -> int:
    if value > MOST:
        raise ValueError("must be at most 2^60")
    return value


def _measurable(value: float) -> float:
    if round(value, 4) != value:
        raise ValueError("must have at most 4 decimals: Ray counts no finer")
    return value


def _whole_above_one(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("must be whole above 1: no process has one GPU and a half")
    return value


def _custom(value: dict[str, float]) -> dict[str, float]:
    for name in value:
        if name in _RAYS_OWN:
            raise ValueError(f"must not have {name}: give {_RAYS_OWN[name]}")
        if not name:
            raise ValueError("must name each resource: a name is empty")
    return value


def _matching(pattern: str, message: str) -> AfterValidator:
    def check(value: str) -> str:
        # `$` also matches before a line break at the end.
        if not re.match(pattern, value, re.ASCII) or value.endswith("\n"):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def _braced(value: str, info: ValidationInfo) -> str:
    if name := (info.context or {}).get(UNBRACED, {}).get(value):
        raise ValueError(
            f"${name} is not replaced: write ${{{name}}} for the variable, or $${name} for a name "
            "with a dollar sign"
        )
    return value


def _without_glob(uri: str) -> str:
    if re.search(r"[*?\[]", uri):  # a run reads from many places, and writes to one
        raise ValueError('must be one place: "*", "?" and "[" work in the source only')
    return uri


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty")
    return value


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError("must be [min, max] with min <= max")
    return value


def _json_like(value: Any, depth: int = 0) -> Any:
    """Return *value* if JSON can hold it: it is stored, and the next session compares it."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"must not be nested deeper than {_MAX_DEPTH} levels")
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        raise ValueError("must have strings as keys")
    for inner in _items(value):
        _json_like(inner, depth + 1)
    return value


def _items(value: object) -> Any:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise ValueError("must be Unicode text")
    if value is not None and not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise ValueError(f"must hold plain values; make the {kind} inside the capability")
    return ()


def _budget(value: Any) -> Any:
    value = _number(value) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a count such as 10, or a share such as 0.001 or 0.1%")  # noqa: TRY004 - pydantic's way
    if not (value >= 0 and (isinstance(value, int) or value <= 1)):
        raise ValueError("must be a count of at least 0, or a share from 0.0 to 1.0, or to 100%")
    return value


def _number(text: str) -> float | None:
    """Return the number in *text*, as a share if it is in per cent; None if it is not a number."""
    try:
        if re.match(_PERCENT, text, re.ASCII):
            return float(text[:-1]) / 100
        return float(text) if set(text) & set(".eE") else int(text)
    except ValueError:
        return None


# Not `min_length`: with it, pydantic also reports a list as too short when none of its items fits.
_SOME = AfterValidator(_not_empty)
_SOME_IN_SCHEMA = Field(json_schema_extra={"minItems": 1})
Count = Annotated[int, Field(ge=1), BeforeValidator(_no_bool), AfterValidator(_countable)]
Share = Annotated[float, Field(ge=0), BeforeValidator(_no_bool), AfterValidator(_measurable)]
Gpus = Annotated[Share, AfterValidator(_whole_above_one)]
Resources = Annotated[dict[str, Share], AfterValidator(_custom)]
Budget = Annotated[
    int | float,
    # Not pydantic's union, which converts: 1 is one row, and 1.0 is all of them.
    PlainValidator(_budget),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": _PERCENT},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(size_in_bytes),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": SIZE_PATTERN}]}
    ),
]
Duration = Annotated[
    float,
    BeforeValidator(duration_in_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "minLength": 1, "pattern": DURATION_PATTERN},
            ]
        }
    ),
]
Uri = Annotated[
    str, BeforeValidator(_path_text), AfterValidator(_braced), AfterValidator(absolute_uri)
]
OneUri = Annotated[
    str,
    BeforeValidator(_path_text),
    AfterValidator(_braced),
    AfterValidator(_without_glob),
    AfterValidator(absolute_uri),
]
# The tag chooses one of the two forms, so that an error is about the form that the user wrote.
Uris = Annotated[
    Annotated[Uri, Tag("<one>")]
    | Annotated[tuple[Uri, ...], _SOME, _SOME_IN_SCHEMA, Tag("<several>")],
    Discriminator(lambda value: "<several>" if isinstance(value, list | tuple) else "<one>"),
]
Files = Annotated[tuple[Uri, ...], _SOME, _SOME_IN_SCHEMA]
Columns = Annotated[tuple[str, ...], _SOME, _SOME_IN_SCHEMA]
Concurrency = Annotated[
    Annotated[Count, Tag("<fixed>")]
    | Annotated[tuple[Count, Count], AfterValidator(_rising), Tag("<range>")],
    Discriminator(lambda value: "<range>" if isinstance(value, list | tuple) else "<fixed>"),
]
Format = Annotated[
    str,
    AfterValidator(_known_format),
    Field(json_schema_extra=_list_formats),
]
Kwargs = Annotated[dict[str, Any], AfterValidator(_json_like)]
StorageOptions = Annotated[dict[str, Any], NEUTRAL]
Word = Annotated[str, _matching(r"\S+$", "must be a word, without spaces")]
Name = Annotated[
    str,
    _matching(_NAME, 'must be letters, digits, ".", "_" and "-", a letter or digit first'),
    Field(json_schema_extra={"pattern": _NAME}),
]
UsagePath = Annotated[
    str,
    _matching(_PATH, "must be names with dots between them, such as response.body.usage"),
    Field(json_schema_extra={"pattern": _PATH}),
]
Target = Annotated[
    str,
    _matching(_TARGET, 'must be "package.module:attribute"'),
    Field(json_schema_extra={"pattern": _TARGET}),
]
