"""Detects what only running the capability shows: dynamic imports, and changes of the object."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any

from batchrunner.capability.finding import Module, ModuleOwner, loaded_module

Values = Mapping[tuple[str, ...], str]


class DynamicImports:
    """Detects modules of the user's that are imported from now on and missing in the fingerprint.

    Examples are a plug-in whose name is computed, and a module in a folder that the code adds to
    `sys.path`.
    """

    def __init__(self, fingerprinted: Collection[str]) -> None:
        """Start to watch; *fingerprinted* holds each `Module.place` in the fingerprint."""
        self._fingerprinted, self._imported = fingerprinted, set(sys.modules)

    def new(self) -> list[Module]:
        """Return the modules detected since the last call, sorted by name."""
        names = set(sys.modules) - self._imported
        self._imported |= names
        modules = filter(None, map(loaded_module, sorted(names)))
        return [
            module
            for module in modules
            if module.owner is ModuleOwner.USER and module.place not in self._fingerprinted
        ]


@dataclass(frozen=True, slots=True)
class _SideEffects:
    """The values that an object held before and after a run, such as a cache or a counter."""

    owner: weakref.ref[Any]
    before: Values
    after: Values


# By the id of the object, since an object need not be hashable.
_side_effects: dict[int, _SideEffects] = {}


def remember_side_effects(capability: Any, *, before: Values, after: Values) -> None:
    """Remember that a run in this process changed what *capability* holds from *before* to *after*.

    Without this, the capability's own work would count as a change of its code in the next run.
    """
    owner = _owner_of(capability)
    try:
        # Python reuses the id of a freed object, so the entry is dropped with the object.
        reference = weakref.ref(owner, partial(_drop, id(owner)))
    except TypeError:  # it allows no weak references, so its own changes count as the user's
        return
    if before != after:
        _side_effects[id(owner)] = _SideEffects(reference, before, after)


def without_side_effects(capability: Any, values: Values) -> Values:
    """Return *values* of *capability*; if only its last run changed them, those from before it."""
    owner = _owner_of(capability)
    effects = _side_effects.get(id(owner))
    # Unless both match, the user changed the object as well, which counts.
    if effects is None or effects.owner() is not owner or effects.after != values:
        return values
    return effects.before


def _drop(number: int, _: object) -> None:
    _side_effects.pop(number, None)


def _owner_of(capability: Any) -> Any:
    """Return the lasting object: each look-up of a bound method creates a new one."""
    return capability.__self__ if isinstance(capability, MethodType) else capability
