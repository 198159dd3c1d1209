"""Modules, found without importing them, and whose they are: the user's, or somebody else's.

Modules of the user's that this process imports, and no look at the source told of.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePath
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}
OURS = "batchrunner"
"""This framework, which is not the user's, however it is installed."""


class Owner(Enum):
    """Whose a module is."""

    USER = "the user's own"
    PACKAGE = "of an installed package"
    PYTHON = "of Python itself"
    NOBODY = "a folder of modules, in which each may be somebody else's"


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is there.

    Attributes:
        name: Dotted.
        origin: Its file, or None: it is compiled into Python, or a namespace package.
        is_package: It can have modules in it.
    """

    name: str
    origin: Path | None
    is_package: bool

    @property
    def place(self) -> str:
        """Its file as seen from the folder that it is imported from: the same wherever that is."""
        *parents, last = self.name.split(".")
        folder = [*parents, last] if self.is_package else parents
        return "/".join([*folder, self.origin.name if self.origin else last])

    @property
    def owner(self) -> Owner:
        """Whose it is, told by where it stands."""
        if self.origin is None:
            return Owner.NOBODY if self.is_package else Owner.PYTHON
        if self.name.partition(".")[0] == OURS or _INSTALLED & set(self.origin.parts):
            return Owner.PACKAGE
        if any(self.origin.is_relative_to(folder) for folder in _standard_library()):
            return Owner.PYTHON
        return Owner.USER


@cache
def _standard_library() -> tuple[PurePath, ...]:
    named = {PurePath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return tuple({*named, PurePath(os.__file__).parent})


def find_module(name: str) -> Module | None:
    """Find module *name* without importing it or its packages; None when there is none."""
    path: Iterable[str] | None = None
    found: ModuleSpec | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        if depth > 1 and path is None:  # a module, not a package
            return None
        found = _find_spec(".".join(parts[:depth]), path)
        if found is None:
            return None
        path = _search_path(found)
    return None if found is None else Module(name, _file_of(found), path is not None)


def loaded_module(name: str) -> Module | None:
    """Return module *name* as this process has it, also when no search would find it."""
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if origin is None:
        return None
    return Module(name, Path(origin), hasattr(module, "__path__"))


def module_file(name: str) -> Path | None:
    """Return the source file of module *name* without importing it or its packages."""
    module = find_module(name)
    if module is None or module.origin is None or module.origin.suffix != ".py":
        return None
    return module.origin


def _find_spec(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    places = None if path is None else list(path)
    specs = (_asked(finder, name, places) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _asked(finder: Any, name: str, places: list[str] | None) -> ModuleSpec | None:
    try:
        found: ModuleSpec | None = finder.find_spec(name, places)
    except KeyError:  # a namespace in a namespace asks its parent, which is not imported
        found = finder.find_spec(name.rpartition(".")[2], places)
    return found


def _search_path(spec: ModuleSpec) -> list[str] | None:
    locations = spec.submodule_search_locations
    return None if locations is None else list(locations)


def _file_of(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin) if spec.has_location and spec.origin else None


class Unfollowed:
    """Finds the modules that are imported from now on, and not among those that are looked at.

    A plug-in by a name that is made up when it runs, or a folder that is put into `sys.path` then.
    """

    def __init__(self, places: Collection[str]) -> None:
        """Take what stands at *places* for what is looked at."""
        self._places, self._known = places, set(sys.modules)

    def more(self) -> list[Module]:
        """Return those that came since the last call, by name."""
        names = set(sys.modules) - self._known
        self._known |= names
        modules = filter(None, map(loaded_module, sorted(names)))
        return [m for m in modules if m.owner is Owner.USER and m.place not in self._places]
