"""The error for values that do not fit the sink's schema."""

from __future__ import annotations

CONVERT = "; convert it to that type, or use another name"


class SchemaError(ValueError):
    """A column does not fit a schema, or another column; the message names it and the reason."""


def first_line(error: BaseException) -> str:
    """Return the first line of the message of *error*, at most 200 characters."""
    return str(error).partition("\n")[0][:200]
