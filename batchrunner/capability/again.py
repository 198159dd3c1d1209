"""The modules of a capability, looked at again by whoever imports them later than the driver."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import PurePosixPath

from batchrunner.capability.finding import Module, Owner, find_module
from batchrunner.capability.modules import source_of


@dataclass(frozen=True, slots=True)
class ModuleSeen:
    """A module as one process found it.

    Attributes:
        owner: Whose it is, by where it stands.
        definitions: A hash for each name that it defines, as JSON.
    """

    owner: Owner
    definitions: str


_imported: dict[str, tuple[ModuleSpec, ModuleSeen]] = {}


def as_seen_here(modules: Mapping[str, str]) -> dict[str, ModuleSeen]:
    """Return *modules*, whose definitions are known by their place, with whose they are here."""
    found = ((place, _module(place)) for place in modules)
    return {place: ModuleSeen(m.owner, modules[place]) for place, m in found if m is not None}


def seen_again(known: Mapping[str, ModuleSeen]) -> dict[str, ModuleSeen]:
    """Return those of the modules that are *known* by their place, as their files are here and now.

    What is not found, or installed here where the driver had a folder, is left out: on a cluster,
    the capability may be in the image.
    """
    importlib.invalidate_caches()
    found = {place: _seen(place) for place in known}
    return {
        place: seen
        for place, seen in found.items()
        if seen is not None and seen.owner is known[place].owner
    }


def as_imported(now: Mapping[str, ModuleSeen]) -> dict[str, ModuleSeen]:
    """Return the modules that stand in files as *now*, as this process has them.

    That is how they were when it was asked first; one that it has not imported is as its file.
    """
    return {place: _as_imported(name_at(place), seen) for place, seen in now.items()}


def _as_imported(name: str, now: ModuleSeen) -> ModuleSeen:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None:
        return now
    if name not in _imported or _imported[name][0] is not spec:  # it is new, or was reloaded
        _imported[name] = spec, now
    return _imported[name][1]


def _seen(place: str) -> ModuleSeen | None:
    module = _module(place)
    if module is None or module.origin is None or module.origin.suffix != _suffix(place):
        return None
    return ModuleSeen(module.owner, source_of(module).definitions)


def _suffix(place: str) -> str:
    return PurePosixPath(place).suffix


def _module(place: str) -> Module | None:
    return find_module(name_at(place))


def name_at(place: str) -> str:
    """Return the dotted name of the module at *place*, of which `Module.place` is the way back."""
    *parents, file = place.split("/")
    last = file.partition(".")[0]
    return ".".join(parents if last == "__init__" else [*parents, last])
