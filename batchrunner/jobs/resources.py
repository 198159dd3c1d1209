"""What a job asks of the machine that runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.quantity import size_in_bytes

Resources = dict[str, Any]
"""Options of a Ray task: num_cpus, num_gpus, memory, accelerator_type, resources."""

_NAMES = ("num_cpus", "num_gpus", "memory", "accelerator_type", "resources")


def resources_of(asked: Mapping[str, Any] | None, *, config: Any, capability: Any) -> Resources:
    """Return what a job needs.

    CPUs and GPUs: as *asked*, else by *config*'s `num_cpus`/`num_gpus`, else by the capability's
    `default_num_cpus`/`default_num_gpus`, else one CPU. Names that Ray does not know are custom
    resources.

    Raises:
        InvalidSpecError: An amount cannot be one.
    """
    if asked is not None and not isinstance(asked, Mapping):
        raise InvalidSpecError(f"resources must be a mapping, such as {{'num_gpus': 1}}: {asked!r}")
    wanted = dict(asked or {})
    for name, default in (("num_cpus", 1), ("num_gpus", 0)):
        if wanted.get(name) is None:
            hint = getattr(config, name, None)
            if hint is None:
                hint = getattr(capability, f"default_{name}", None)
            wanted[name] = default if hint is None else hint
    custom = {**(wanted.get("resources") or {})}
    custom.update({name: wanted[name] for name in wanted if name not in _NAMES})
    return {
        "num_cpus": _amount("num_cpus", wanted["num_cpus"]),
        "num_gpus": _amount("num_gpus", wanted["num_gpus"], whole_above_one=True),
        "memory": _memory(wanted.get("memory")),
        "accelerator_type": wanted.get("accelerator_type"),
        "resources": {name: _amount(name, amount) for name, amount in custom.items()},
    }


def _amount(name: str, value: Any, *, whole_above_one: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise InvalidSpecError(f"resources: {name} must be a number from 0 on, not {value!r}")
    if whole_above_one and value > 1 and value != int(value):
        raise InvalidSpecError(f"resources: {name} above 1 must be whole, not {value!r}")
    return float(value)


def _memory(value: Any) -> int | None:
    try:
        return None if value is None else size_in_bytes(int(value) if _is_whole(value) else value)
    except ValueError as error:
        raise InvalidSpecError(f"resources: memory {error}, not {value!r}") from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()
