"""What shows only while the capability runs: dynamic imports, and what a call changes in the object."""

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
    """Detects the user's modules that are imported from now on and that the fingerprint lacks.

    Such as a plug-in whose name is made up at run time, or a folder that the code puts into
    `sys.path`.
    """

    def __init__(self, fingerprinted: Collection[str]) -> None:
        """Start; *fingerprinted* holds the `place` of each module that the fingerprint has."""
        self._fingerprinted, self._imported = fingerprinted, set(sys.modules)

    def new(self) -> list[Module]:
        """Return the modules that were imported since the last call, by name."""
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
    """What an object held before it was called, and after that: a cache, a counter, a list."""

    owner: weakref.ref[Any]
    before: Values
    after: Values


# By the id of the object, since an object need not be hashable.
_side_effects: dict[int, _SideEffects] = {}


def remember_side_effects(capability: Any, *, before: Values, after: Values) -> None:
    """Remember that a run in this process took *capability* from *before* to *after*.

    Without this, the capability's own work would count as a change of its code in the next run.
    """
    owner = _owner_of(capability)
    try:
        # An id is used again once its object is gone, so the entry must go with it.
        reference = weakref.ref(owner, partial(_drop, id(owner)))
    except TypeError:  # it takes no weak references, so its own work counts as a change
        return
    if before != after:
        _side_effects[id(owner)] = _SideEffects(reference, before, after)


def without_side_effects(capability: Any, values: Values) -> Values:
    """Return what *capability* held before its last run, if *values* is what it held after that."""
    owner = _owner_of(capability)
    effects = _side_effects.get(id(owner))
    # Unless both match, the user changed it as well, which counts.
    if effects is None or effects.owner() is not owner or effects.after != values:
        return values
    return effects.before


def _drop(number: int, _: object) -> None:
    _side_effects.pop(number, None)


def _owner_of(capability: Any) -> Any:
    """Return the object that lives on: a bound method is made anew by each look-up."""
    return capability.__self__ if isinstance(capability, MethodType) else capability
