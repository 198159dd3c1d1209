"""Parses the text of an Arrow type: as Arrow prints it, or in shorter forms such as `i8`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchrunner.formats.arrow_names import ALIASES, EXAMPLES, not_a_type
from batchrunner.formats.arrow_types import (
    DECIMALS,
    EXTENSIONS,
    LISTS,
    NOT_IN_PARQUET,
    PLAIN,
    UNITS,
    ArrowField,
    ArrowType,
    decimal_of,
    dictionary_of,
    list_of,
    map_of,
    quoted,
    struct_of,
)

MAX_DEPTH = 50

_WORD = re.compile(r"\s*([A-Za-z_][A-Za-z_0-9]*)")
_NUMBER = re.compile(r"\s*([0-9]{1,9})(?![0-9])")
_UNIT = re.compile(r"\s*\[\s*([a-z]+)\s*(?:,\s*tz\s*=\s*([A-Za-z0-9_+:/-]+)\s*)?\]")
_NAME = re.compile(r'([^:<>,"]*):')
_QUOTED_NAME = re.compile(r'\s*("(?:[^"\\]|\\.)*")\s*:')
# Arrow names the element, as in `list<item: int64>`, and ignores the name when it compares.
_ELEMENT_NAME = re.compile(r'[^:<>,"()\[\]=]*:')
# Arrow prints a map's field with an unusual name as `map<string, int64 ('v')>`.
_NAME_IN_A_MAP = re.compile(r"\s*\('[^']*'\)")
_NOT_NULL = re.compile(r"\s*not\s+null\b")
_ORDERED = re.compile(r"\s*,\s*ordered\s*=\s*([01])")
_KEYS_SORTED = re.compile(r"\s*,\s*keys_sorted")


def read_type(text: str) -> ArrowField:
    """Return the type that *text* names, and whether it may be null, as a field without a name.

    Raises:
        ValueError: It names no type that Parquet can hold. The message suggests the nearest type. It
            quotes only field names of the text, which may be a misplaced secret.
    """
    return _TypeParser(text).parse()


class _TypeParser:
    """A recursive-descent parser of one text."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._depth = 0
        self._path: list[str] = []

    def parse(self) -> ArrowField:
        try:
            return self._whole()
        except ValueError as error:
            where = ".".join(self._path)
            raise ValueError(f"in {quoted(where[:60])}: {error}" if where else str(error)) from None

    def _whole(self) -> ArrowField:
        field = self._field("")
        if self._text[self._at :].strip():
            raise ValueError(f"the type ends at character {self._at}, and more follows: remove it")
        return field

    def _field(self, name: str) -> ArrowField:
        kind = self._type()
        nullable = self._match(_NOT_NULL) is None
        if kind.name == "null" and not nullable:
            raise ValueError("null is the only value of the type null: leave out `not null`")
        return ArrowField(name, kind, nullable=nullable)

    def _type(self) -> ArrowType:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
        word = self._match(_WORD)
        kind = self._kind(word[1] if word else "")
        self._depth -= 1
        return kind

    def _kind(self, word: str) -> ArrowType:
        name = ALIASES.get(word, word)
        if name in PLAIN:
            return ArrowType(name)
        if name in EXTENSIONS:
            return ArrowType("extension", (name,))
        if name in UNITS:
            return self._with_unit(name)
        if name in NOT_IN_PARQUET:
            raise ValueError(f"Parquet has no type for {NOT_IN_PARQUET[name]}")
        if name in LISTS:
            return self._list(name)
        readers: dict[str, Callable[[], ArrowType]] = {
            **dict.fromkeys(DECIMALS, lambda: self._decimal(name)),
            "struct": self._struct,
            "map": self._map,
            "dictionary": self._dictionary,
            "extension": self._extension,
            "fixed_size_binary": self._fixed_size_binary,
        }
        if name not in readers:
            raise ValueError(not_a_type(word))
        return readers[name]()

    def _with_unit(self, name: str) -> ArrowType:
        unit = self._match(_UNIT)
        if not unit and len(UNITS[name]) == 1:
            return ArrowType(name, UNITS[name])
        if not unit or unit[1] not in UNITS[name] or (unit[2] and name != "timestamp"):
            units = " or ".join(f"{name}[{one}]" for one in UNITS[name])
            zone = ", or with a zone timestamp[us, tz=UTC]" if name == "timestamp" else ""
            raise ValueError(f"must be {units}{zone}")
        return ArrowType(name, (unit[1], unit[2]) if unit[2] else (unit[1],))

    def _decimal(self, name: str) -> ArrowType:
        self._expect("(", name)
        precision = self._number(name)
        scale = self._number(name) if self._take(",") else 0
        self._expect(")", name)
        return decimal_of(name, precision, scale)

    def _fixed_size_binary(self) -> ArrowType:
        size = self._size("fixed_size_binary")
        if not size:
            raise ValueError("Parquet has no type for bytes of the size 0: give 1 or more")
        return ArrowType("fixed_size_binary", (size,))

    def _size(self, name: str) -> int:
        self._expect("[", name)
        size = self._number(name)
        self._expect("]", name)
        return size

    def _list(self, name: str) -> ArrowType:
        self._expect("<", name)
        self._match(_ELEMENT_NAME)
        element = self._field("item")
        self._expect(">", name)
        return list_of(
            element, kind=name, size=self._size(name) if name == "fixed_size_list" else 0
        )

    def _struct(self) -> ArrowType:
        self._expect("<", "struct")
        fields: list[ArrowField] = []
        while not self._take(">"):
            if fields:
                self._expect(",", "struct")
            with self._inside(self._field_name()) as name:
                fields.append(self._field(name))
        return struct_of(fields)

    def _field_name(self) -> str:
        if name := self._match(_QUOTED_NAME):
            return str(json.loads(name[1], strict=False))
        if name := self._match(_NAME):
            return name[1].strip()
        raise ValueError(
            'a field of a struct is `name: type`, an odd name in quotes: struct<"a:b": int64>'
        )

    def _map(self) -> ArrowType:
        self._expect("<", "map")
        key = self._named_field()
        self._expect(",", "map")
        value = self._named_field()
        keys_sorted = self._match(_KEYS_SORTED) is not None
        self._expect(">", "map")
        return map_of(key.type, value, keys_sorted=int(keys_sorted))

    def _named_field(self) -> ArrowField:
        field = self._field("")
        self._match(_NAME_IN_A_MAP)
        return field

    def _dictionary(self) -> ArrowType:
        self._expect("<values=", "dictionary")
        values = self._type()
        self._expect(",", "dictionary")
        self._expect("indices=", "dictionary")
        indices = self._type()
        ordered = self._match(_ORDERED)
        self._expect(">", "dictionary")
        return dictionary_of(values, indices, ordered=int(ordered[1]) if ordered else 0)

    def _extension(self) -> ArrowType:
        self._expect("<arrow.", "extension")
        word = self._match(_WORD)
        if not word or word[1] not in EXTENSIONS:
            names = ", ".join(f"extension<arrow.{name}>" for name in sorted(EXTENSIONS))
            raise ValueError(f"of the extension types, these can be declared: {names}")
        self._expect(">", "extension")
        return ArrowType("extension", (word[1],))

    @contextmanager
    def _inside(self, name: str) -> Iterator[str]:
        self._path.append(name)
        yield name
        self._path.pop()  # not in a `finally`: an error reports the path at which it was raised

    def _number(self, name: str) -> int:
        if number := self._match(_NUMBER):
            return int(number[1])
        raise ValueError(_incomplete(name))

    def _expect(self, literal: str, name: str) -> None:
        if not self._take(literal):
            raise ValueError(_incomplete(name))

    def _take(self, literal: str) -> bool:
        # Blanks may stand after each `<` and `=`, as in `dictionary< values = string`.
        pattern = r"\s*".join(re.escape(part) for part in re.split(r"(?<=[<=])", literal) if part)
        return self._match(re.compile(rf"\s*{pattern}")) is not None

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return match


def _incomplete(name: str) -> str:
    return f"the {name} is not complete; write it as in {EXAMPLES[name]}"
