"""Stages that are handed over in Python as objects, in place of targets that a spec names."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from batchrunner.spec import BatchSpec

_TARGET = "in:memory"


def with_stages_of(spec: BatchSpec, capability: Any) -> BatchSpec:
    """Return *spec* with a stage for each object in *capability*, if that is a list.

    If the spec has stages, the objects stand in for their targets, and all else that these say counts.

    Raises:
        InvalidSpecError: The spec has stages, and not as many as there are objects.
    """
    if not isinstance(capability, list | tuple):
        return spec
    given = spec.capability.stages if spec.capability else None
    if given is None:
        deterministic = spec.capability is not None and spec.capability.deterministic
        stages = [{"target": _TARGET, "name": name} for name in _names(capability)]
        section = {"stages": stages, "deterministic": deterministic}
        return spec.model_copy(update={"capability": section})
    if len(given) != len(capability):
        what = f"there are {len(given)} stages here, and {len(capability)} objects in capability=: give as many"
        raise spec.refusal(("capability", "stages"), what)
    return spec


def _names(objects: Sequence[Any]) -> list[str]:
    """Return a name for each of *objects*: that of its function or class, with a number if it is not the only one."""
    names = [_name(one) for one in objects]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{name}-{number}"
        for number, name in enumerate(names, start=1)
    ]


def _name(capability: Any) -> str:
    is_named = isinstance(capability, type) or inspect.isroutine(capability)
    name = getattr(capability if is_named else type(capability), "__name__", "")
    return re.sub(r"[^A-Za-z0-9._-]+", "", str(name)).lstrip("._-") or "stage"
