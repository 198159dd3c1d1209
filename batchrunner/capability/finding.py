"""Find modules without importing them, and decide who owns them: the user, a package or Python."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePath
from typing import Any

_INSTALLED = {"site-packages", "dist-packages"}
OURS = "batchrunner"
"""The package of this framework: it never counts as the user's, however it is installed."""


SHIPPED = f"{OURS}.capabilities."
"""Of its modules, those that stand where the user's would; what they import is what the user needs."""


class ModuleOwner(Enum):
    """Where a module comes from: only the user's own modules decide the fingerprint."""

    USER = "the user's own"
    PACKAGE = "of an installed package"
    PYTHON = "of Python itself"
    NAMESPACE = "a namespace package: each module in it may have another owner"


@dataclass(frozen=True, slots=True)
class Module:
    """A module that can be imported.

    Attributes:
        name: Its dotted name.
        origin: Its file; None when it is compiled into Python, or a namespace package.
        is_package: Whether it can contain modules.
    """

    name: str
    origin: Path | None
    is_package: bool

    @property
    def place(self) -> str:
        """Its file, relative to the folder that it is imported from: the same on every machine."""
        *parents, last = self.name.split(".")
        folder = [*parents, last] if self.is_package else parents
        return "/".join([*folder, self.origin.name if self.origin else last])

    @property
    def owner(self) -> ModuleOwner:
        """Its owner, by the folder that its file is in."""
        if self.origin is None:
            return ModuleOwner.NAMESPACE if self.is_package else ModuleOwner.PYTHON
        # Before the folders: an editable install of batchrunner lies where the user's code does.
        if self.name.partition(".")[0] == OURS or _INSTALLED & set(self.origin.parts):
            return ModuleOwner.PACKAGE
        # After site-packages, which lies inside the folder of the standard library.
        if any(self.origin.is_relative_to(folder) for folder in _standard_library()):
            return ModuleOwner.PYTHON
        return ModuleOwner.USER


@cache
def _standard_library() -> tuple[PurePath, ...]:
    named = {PurePath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return tuple({*named, PurePath(os.__file__).parent})


def find_module(name: str) -> Module | None:
    """Find module *name* without importing it or its packages; None when there is none."""
    path: Iterable[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    # One level after the other: `importlib.util.find_spec` would import the parents.
    for depth in range(1, len(parts) + 1):
        if depth > 1 and path is None:  # a module, not a package
            return None
        spec = _find_spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return None if spec is None else Module(name, _file_of(spec), path is not None)


def loaded_module(name: str) -> Module | None:
    """Return module *name* as this process imported it; None if it did not, or if there is no file.

    `find_module` may be unable to find it, for example after a change of `sys.path`.
    """
    module = sys.modules.get(name)
    origin = getattr(module, "__file__", None)
    if origin is None:
        return None
    return Module(name, Path(origin), hasattr(module, "__path__"))


def module_file(name: str) -> Path | None:
    """Return the source file of module *name* without importing it; None when there is none."""
    module = find_module(name)
    if module is None or module.origin is None or module.origin.suffix != ".py":
        return None
    return module.origin


def _find_spec(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    folders = None if path is None else list(path)
    specs = (_ask_finder(finder, name, folders) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def _ask_finder(finder: Any, name: str, folders: list[str] | None) -> ModuleSpec | None:
    try:
        spec: ModuleSpec | None = finder.find_spec(name, folders)
    except KeyError:  # a nested namespace package looks up its parent, which is not imported
        spec = finder.find_spec(name.rpartition(".")[2], folders)
    return spec


def _file_of(spec: ModuleSpec) -> Path | None:
    return Path(spec.origin) if spec.has_location and spec.origin else None
