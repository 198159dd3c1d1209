"""Replace `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and `$$` in one parsed value of YAML.

Variables are replaced after parsing, so that one that holds a newline, a quote or `: ` stays one value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\{(?P<inside>[^}]*)(?P<end>\}?))")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<sort>[-?])(?P<rest>.*))?", re.DOTALL)
_UNBRACED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


class InterpolationError(ValueError):
    """A reference that cannot be replaced. The message never holds a variable's value."""

    def __init__(self, message: str, reference: str) -> None:
        super().__init__(message, reference)
        self.message, self.reference = message, reference


def interpolated(value: str, environ: Mapping[str, str]) -> str:
    """Return *value* with its references replaced by variables of *environ*.

    As in a shell, `:-` and `:?` treat an empty variable as one that is not set.

    Raises:
        InterpolationError: A variable is not set, or a reference is not well formed.
    """
    return _REFERENCE.sub(lambda reference: _replacement(reference, environ), value)


def has_reference(value: str) -> bool:
    """Return whether *value* refers to a variable of the environment."""
    return any(match["inside"] is not None for match in _REFERENCE.finditer(value))


def unbraced(value: str) -> str | None:
    """Return the name in the first `$NAME` without braces, which is not replaced; else None."""
    match = _UNBRACED.search(value.replace("$$", ""))
    return match[1] if match else None


def _replacement(reference: re.Match[str], environ: Mapping[str, str]) -> str:
    if reference["inside"] is None:
        return "$"
    # The `}` of the inner reference would end the outer one.
    if "${" in reference["inside"]:
        raise InterpolationError("${...} inside ${...} is not supported", reference[0])
    inside = _INSIDE.fullmatch(reference["inside"])
    if inside is None or not reference["end"]:
        forms = "${NAME}, ${NAME:-default} or ${NAME:?message}; a plain dollar sign is $$"
        raise InterpolationError(f"write {forms}", reference[0])
    variable = environ.get(inside["name"])
    if variable or (variable is not None and inside["sort"] is None):
        return variable
    if inside["sort"] == "-":
        return str(inside["rest"])
    why = inside["rest"] if inside["sort"] else None
    why = why or f"set it, or write ${{{inside['name']}:-default}}"
    raise InterpolationError(f"the variable {inside['name']} is not set: {why}", reference[0])
