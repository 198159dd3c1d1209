"""The names of Arrow's types: their aliases, and suggestions for names that Arrow does not have."""

from __future__ import annotations

from typing import Final

from batchrunner.formats.arrow_types import DECIMALS, EXTENSIONS, NESTED, PLAIN, UNITS

ALIASES: Final = {
    **{
        f"{sign}{size}": f"{kind}int{8 * size}"
        for sign, kind in (("i", ""), ("u", "u"))
        for size in (1, 2, 4, 8)
    },
    **dict.fromkeys(("f2", "float16"), "halffloat"),
    **dict.fromkeys(("f4", "float32"), "float"),
    **dict.fromkeys(("f8", "float64"), "double"),
    **dict.fromkeys(("str", "utf8"), "string"),
    **dict.fromkeys(("large_str", "large_utf8"), "large_string"),
    "boolean": "bool",
}
"""Other names that Arrow accepts for plain types."""

TYPE_NAMES: Final = frozenset(
    {*PLAIN, *ALIASES, *UNITS, *DECIMALS, *NESTED, *EXTENSIONS, "fixed_size_binary", "extension"}
)
EXAMPLES: Final = {
    **dict.fromkeys(("int", "integer", "long", "bigint"), "int64"),
    **dict.fromkeys(("text", "varchar", "char"), "string"),
    **dict.fromkeys(("bytes", "blob"), "binary"),
    **dict.fromkeys(("number", "real"), "double"),
    **dict.fromkeys(("decimal", "numeric"), "decimal128(18, 2)"),
    **dict.fromkeys(("datetime", "timestamp"), "timestamp[us]"),
    **dict.fromkeys(("date", "date32"), "date32"),
    **dict.fromkeys(("time", "time64"), "time64[us]"),
    **dict.fromkeys(("array", "list", "sequence"), "list<string>"),
    **dict.fromkeys(("object", "struct", "record"), "struct<a: int64, b: string>"),
    **dict.fromkeys(("dict", "map"), "map<string, int64>"),
    "date64": "date64[ms]",
    "decimal32": "decimal32(9, 2)",
    "decimal64": "decimal64(18, 2)",
    "decimal128": "decimal128(18, 2)",
    "decimal256": "decimal256(50, 2)",
    "dictionary": "dictionary<values=string, indices=int32>",
    "duration": "duration[us]",
    "extension": "extension<arrow.uuid>",
    "fixed_size_binary": "fixed_size_binary[16]",
    "fixed_size_list": "fixed_size_list<float>[768]",
    "large_list": "large_list<string>",
    "large_list_view": "large_list_view<string>",
    "list_view": "list_view<string>",
    "time32": "time32[ms]",
    "uuid": "uuid",
}
"""The type to suggest for a name that is no Arrow type, or that lacks its parameters."""


def not_a_type(word: str) -> str:
    """Return the error message for *word*, which names no type; it suggests the nearest type."""
    import difflib  # slow to import, and only a typo needs it

    near = difflib.get_close_matches(word.lower()[:30], TYPE_NAMES, n=1)
    meant = EXAMPLES.get(word.lower()) or (EXAMPLES.get(near[0], near[0]) if near else None)
    if meant is None:
        return "must be a type of Arrow's, such as int64, string or list<double>"
    return f"no type of Arrow's; did you mean {meant}?"
