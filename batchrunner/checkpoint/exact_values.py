"""Values of Python as JSON, exactly: what comes back has the same value and type, or is refused.

JSON's own values stay what they are, also integers of any size. Others are an object with one key that begins
with "$": bytes, tuples, decimals, floats that are not finite, and arrays and scalars of numpy.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

_PLAIN = (str, int, bool, type(None))
_KINDS_OF_ARRAYS = "biufc"
"""Kinds of numpy's types whose bytes are their values: booleans, numbers."""


class NotExactError(ValueError):
    """A value that JSON does not hold in value and type."""


def to_json(value: Any) -> str:
    """Return *value* as JSON in one line.

    Raises:
        NotExactError: It would come back as another value, or of another type.
        RecursionError: It is nested too deeply.
    """
    return json.dumps(_tagged(value), separators=(",", ":"), allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """Return the value in *text*, which `to_json` made.

    Raises:
        ValueError: It is none of its texts.
    """
    return _plain(json.loads(text))


def _tagged(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if kind is dict:
        if not all(type(key) is str for key in value):
            raise NotExactError("a key that is no string")
        tagged = {key: _tagged(inner) for key, inner in value.items()}
        is_taken = len(value) == 1 and next(iter(value)).startswith("$")
        return {"$dict": tagged} if is_taken else tagged
    if kind is list:
        return [_tagged(inner) for inner in value]
    if kind is tuple:
        return {"$tuple": [_tagged(inner) for inner in value]}
    return _other(value)


def _other(value: Any) -> dict[str, Any]:
    kind = type(value)
    if kind is float:
        return {"$float": repr(value)}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is Decimal:
        return {"$decimal": str(value)}
    if kind.__module__ == "numpy" and getattr(value, "dtype", None) is not None:
        return _of_numpy(value)
    raise NotExactError(f"a value of type {kind.__qualname__}")


def _of_numpy(value: Any) -> dict[str, Any]:
    is_array, is_scalar = type(value).__name__ == "ndarray", value.ndim == 0
    if (
        value.dtype.kind not in _KINDS_OF_ARRAYS
        or is_array is is_scalar
        or value.dtype.itemsize > 16
    ):
        raise NotExactError(f"{type(value).__qualname__} of {value.dtype}")
    data = base64.b64encode(value.tobytes()).decode()
    return {"$numpy": [value.dtype.str, list(value.shape), data]}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key.startswith("$"):
            return _untagged(key, inner)
    return {key: _plain(inner) for key, inner in value.items()}


def _untagged(key: str, inner: Any) -> Any:
    try:
        return _UNTAGGED[key](inner)
    except (KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(f"not a value: {key}") from error


def _numpy(fields: list[Any]) -> Any:
    import numpy as np

    dtype, shape, data = fields
    array = np.frombuffer(base64.b64decode(data), dtype=dtype)
    return array.reshape(shape).copy() if shape else array[0]


_UNTAGGED: Mapping[str, Callable[[Any], Any]] = {
    "$float": float,
    "$bytes": base64.b64decode,
    "$decimal": Decimal,
    "$tuple": lambda inner: tuple(map(_plain, inner)),
    "$dict": lambda inner: {key: _plain(value) for key, value in inner.items()},
    "$numpy": _numpy,
}
