"""How a CSV file is written: its delimiter, its quotes, its names and types of columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrunner.formats.arrow_text import read_type
from batchrunner.formats.arrow_types import DECIMALS, INTEGERS

READABLE = frozenset(
    {
        "bool",
        *INTEGERS,
        "float",
        "double",
        *DECIMALS,
        "string",
        "large_string",
        "date32",
        "time32",
        "time64",
        "timestamp",
    }
)
"""Names of the types whose values have a text in CSV."""

_CHARACTER = re.compile(r"[^\x00\r\n\x7f-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written.

    Attributes:
        delimiter: The character between fields.
        quote: The character around a field that may hold any other; "" if quotes are plain text.
        names: The names of the columns of files without a header line; None if files have one.
        nulls: The texts that, without quotes, stand for null.
        schema: The types of columns, as text; those that are not named are strings.
    """

    delimiter: str = ","
    quote: str = '"'
    names: tuple[str, ...] | None = None
    nulls: tuple[str, ...] = ("",)
    schema: tuple[tuple[str, str], ...] = ()

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Dialect:
        """Return the dialect that *options* give, by the names of the attributes.

        Raises:
            ValueError: A value is not possible.
        """
        quote = "" if options["quote"] is None else options["quote"]
        _check_characters(options["delimiter"], quote)
        names, nulls = options["names"], options["nulls"]
        schema = options["schema"] or {}
        if names is not None:
            names = _texts("names", names)
            _check_names(names)
            if missing := [name for name in schema if name not in names]:
                raise ValueError(f"source.schema: there is no column {missing[0]!r} among names")
        for name, text in schema.items():
            if read_type(text).type.name not in READABLE:
                raise ValueError(
                    f"source.schema: column {name!r}: CSV has no text for {text}; leave it a string"
                )
        return cls(options["delimiter"], quote, names, _texts("nulls", nulls), (*schema.items(),))


def _check_names(names: Sequence[str]) -> None:
    """Check that *names* can name columns.

    Raises:
        ValueError: There is none, or two are the same.
    """
    if not names:
        raise ValueError("names: must name a column")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two columns are called {twice[0]!r}: rename one")


def _check_characters(delimiter: Any, quote: Any) -> None:
    if not isinstance(delimiter, str) or not _CHARACTER.fullmatch(delimiter):
        raise ValueError(
            f"delimiter: must be one ASCII character, such as ';' or a tab, not {delimiter!r}"
        )
    if quote != "" and (not isinstance(quote, str) or not _CHARACTER.fullmatch(quote)):
        raise ValueError(f"quote: must be one ASCII character, or null for none, not {quote!r}")
    if quote == delimiter:
        raise ValueError(f"quote: must be another character than the delimiter, {delimiter!r}")


def _texts(option: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{option}: must be a list of texts")
    return tuple(values)
