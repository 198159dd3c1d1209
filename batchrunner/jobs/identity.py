"""Which run a submission asks for: two that ask for the same one are one job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from batchrunner.errors import InvalidSpecError

Inputs = Mapping[str, Any]
"""What `capability.run` is called with: models, datasets, metrics, config and more, by name."""

KINDS = ("datasets", "models", "metrics")


def run_key(capability: Any, inputs: Inputs, *, edition: str = "") -> str:
    """Return the name of the logical run: 32 hex digits.

    It is made of the capability's id, the config (the capability's own when none is given), the ids
    of datasets, models and metrics, in order, further arguments of `run`, and the edition. Not of
    resources, of the store, or of objects in memory: the same from any process.

    Raises:
        InvalidSpecError: Something has no identity that another process would see too.
    """
    config = inputs.get("config")
    if config is None and hasattr(capability, "_create_config"):
        config = capability._create_config()  # noqa: SLF001 - part of the capabilities' protocol
    known = (*KINDS, "config", "use_cache")
    decisive = {
        "capability": str(capability.id),
        "config": _plain(config, what="config"),
        **{kind: ids_of(inputs.get(kind), kind=kind) for kind in KINDS},
        "more": {name: _plain(inputs[name], what=name) for name in inputs if name not in known},
        **({"edition": edition} if edition else {}),  # without one, a key stays what it was
    }
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def ids_of(items: Iterable[Any] | None, *, kind: str) -> list[str]:
    """Return the ids of datasets, models or metrics: of `metadata`, or their own.

    Raises:
        InvalidSpecError: One has none.
    """
    return [_id_of(item, f"{kind}[{index}]") for index, item in enumerate(items or ())]


def _id_of(item: Any, what: str) -> str:
    if isinstance(item, str):
        return item
    metadata = getattr(item, "metadata", None)
    places = (metadata, item)
    found = (p.get("id") if isinstance(p, Mapping) else getattr(p, "id", None) for p in places)
    name = next((value for value in found if value is not None), None)
    if name is None:
        raise InvalidSpecError(
            f"{what} ({type(item).__name__}) has no id, so nobody could tell whether two jobs are "
            'the same run: give it metadata={"id": …}, or use the backend "ray-simple"'
        )
    return str(name)


def _plain(value: Any, *, what: str) -> Any:
    """Return *value* as JSON has it, the same in every process."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, what=what)
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"), what=what)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name), what=what) for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, what=what) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(inner, what=what) for inner in value]
        return items if isinstance(value, list | tuple) else sorted(items, key=repr)
    raise InvalidSpecError(
        f"{what} holds a {type(value).__name__}, which cannot be told from another one: use "
        'plain values, a dataclass or a pydantic model, or the backend "ray-simple"'
    )


def _fields_of(value: Any) -> Mapping[Any, Any] | None:
    """Return *value* as a mapping, if it is like one."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if isinstance(value, Mapping) else None
