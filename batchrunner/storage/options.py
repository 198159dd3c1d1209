"""Storage options: fsspec's words for credentials, endpoints and the like."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

Options = Mapping[str, Any]


def options_key(options: Options) -> Hashable:
    """Return what is equal for equal *options*, to keep things by."""
    return tuple(sorted((name, _key(value)) for name, value in options.items()))


def _key(value: Any) -> tuple[str, Hashable]:
    if isinstance(value, Mapping):
        return ("", options_key(value))
    return (type(value).__name__, repr(value))
