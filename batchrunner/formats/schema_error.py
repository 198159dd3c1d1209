"""The error for values that do not fit the sink's schema."""

from __future__ import annotations

CONVERT = "; convert it to that type, or use another name"


class SchemaError(ValueError):
    """A column does not fit: the message names it and both types."""


def first_line(error: BaseException) -> str:
    """Return what *error* says, without what follows its first line."""
    return str(error).partition("\n")[0][:200]
