"""Finds the user's modules that a capability depends on: its own, and all that they import."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import BadZipFile, ZipFile

from batchrunner.capability.finding import (
    OURS,
    SHIPPED,
    Module,
    ModuleOwner,
    find_module,
    loaded_module,
)
from batchrunner.capability.syntax import (
    WHOLE,
    definitions,
    exported_names,
    hash_of,
    imported_names,
)
from batchrunner.errors import CapabilityImportError


@dataclass(frozen=True, slots=True)
class Source:
    """The names that a module defines, imports and exports, read from its file.

    Attributes:
        definitions: A hash for each name that it defines, as JSON.
        imports: Dotted names that it may import.
        exports: Names that `from ... import *` binds.
        problem: Why it could not be read or parsed; "" if it was, or if it is not Python.
    """

    definitions: str
    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class Modules:
    """The dependencies of a capability, each read once.

    Attributes:
        own: The definitions of each of the user's modules, by `Module.place`.
        installed: Names of the installed modules that they import: top-level ones, or those in a
            namespace package.
    """

    own: dict[str, str] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    _own_packages: set[str] = field(default_factory=set)
    _visited: set[str] = field(default_factory=set)
    _owners: dict[str, ModuleOwner | None] = field(default_factory=dict)

    def add(self, name: str, *, is_target: bool) -> None:
        """Add module *name* and what it imports.

        Args:
            name: The module's dotted name.
            is_target: Whether it holds the capability: then its package is the user's, even if
                installed.

        Raises:
            CapabilityImportError: It cannot be found, read or parsed.
        """
        importlib.invalidate_caches()  # of two files written in one tick, the second would be missed
        top = name.partition(".")[0]
        if is_target and top != OURS:
            self._own_packages.add(top)
        module = find_module(name) or loaded_module(name)
        if module is None or module.origin is None:
            raise CapabilityImportError(
                f"module {name!r} has no source file (compiled, or a namespace package?), so changes of "
                "its code could not be detected: install its .py file"
            )
        if problem := source_of(module).problem:
            raise CapabilityImportError(
                f"the module {name!r} cannot be parsed: {module.origin}: {problem}"
            )
        self._follow([name])

    def add_imported(self, names: Iterable[str]) -> None:
        """Add each of *names* that can be found, and its imports: for code that is in no module."""
        self._follow(names)

    def is_own(self, module: Module) -> bool:
        """Return whether *module* is the user's."""
        return (
            module.owner is ModuleOwner.USER or module.name.partition(".")[0] in self._own_packages
        )

    def owner_of(self, name: Any) -> ModuleOwner | None:
        """Return the owner of module *name*, which is an object's `__module__`.

        None for a script, and for a module without a file that is not Python's own.
        """
        if not isinstance(name, str) or name in ("__main__", ""):
            return None
        module = loaded_module(name)
        if module is None:
            is_pythons = name in sys.builtin_module_names or name in sys.stdlib_module_names
            return ModuleOwner.PYTHON if is_pythons else None
        return ModuleOwner.USER if self.is_own(module) else module.owner

    def holds(self, module: ModuleType) -> bool:
        """Return whether *module* is the user's, or was made without a file, as in a notebook."""
        top = module.__name__.partition(".")[0]
        return all(
            self.owner_of(name) in (None, ModuleOwner.USER) for name in {top, module.__name__}
        )

    def _follow(self, names: Iterable[str]) -> None:
        # A loop, not recursion: a chain of imports may be longer than Python's stack.
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self._visited and self._may_be_own(name):
                self._visited.add(name)
                waiting += self._dependencies(name)

    def _may_be_own(self, name: str) -> bool:
        """Return whether *name* may be the user's, by its top package, or ships with us for users.

        Most others stay unread.
        """
        if name.startswith(SHIPPED):
            return True
        top = name.partition(".")[0]
        if top not in self._owners:
            module = find_module(top) or loaded_module(top)
            self._owners[top] = module.owner if module else None
            if self._owners[top] is ModuleOwner.PACKAGE:
                self.installed.add(top)
        return top in self._own_packages or self._owners[top] in (
            ModuleOwner.USER,
            ModuleOwner.NAMESPACE,
        )

    def _dependencies(self, name: str) -> Iterator[str]:
        module = find_module(name) or loaded_module(name)
        if module is None:
            yield from self._starred(name)
            return
        if "." in name:  # importing a.b runs a/__init__.py first
            yield name.rpartition(".")[0]
        if module.origin is None:
            return
        if self.is_own(module):
            source = source_of(module)
            self.own[module.place] = source.definitions
            yield from source.imports
        elif module.owner is ModuleOwner.PACKAGE:
            self.installed.add(name)
            if name.startswith(
                SHIPPED
            ):  # the versions of its libraries are those of the capability
                yield from source_of(module).imports

    def _starred(self, name: str) -> Iterator[str]:
        package, _, last = name.rpartition(".")
        module = find_module(package) if last == "*" else None
        if module is not None and module.origin is not None and self.is_own(module):
            yield from (f"{package}.{export}" for export in source_of(module).exports)


def source_of(module: Module) -> Source:
    """Return what the file of *module* defines and imports, or the `problem` of reading it."""
    try:
        data = _bytes(module.origin)
    except OSError as error:
        return Source(json.dumps({WHOLE: "unreadable"}), problem=str(error))
    return _source_of(data, module)


@lru_cache(maxsize=4096)
def _source_of(data: bytes, module: Module) -> Source:
    """Parse the bytes of a file; hash those that are not Python, such as an extension module's."""
    try:
        tree = ast.parse(data)
        defined = definitions(tree)
    except (SyntaxError, ValueError, RecursionError) as error:
        is_python = module.origin is not None and module.origin.suffix == ".py"
        return Source(json.dumps({WHOLE: hash_of(data)}), problem=str(error) if is_python else "")
    imports = tuple(dict.fromkeys(imported_names(tree, module)))
    return Source(json.dumps(defined), imports, tuple(exported_names(tree)))


def _bytes(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except NotADirectoryError:
        return _bytes_in_archive(path)


def _bytes_in_archive(path: Path) -> bytes:
    archive = next(parent for parent in path.parents if parent.is_file())
    try:
        with ZipFile(archive) as file:
            return file.read(path.relative_to(archive).as_posix())
    except (BadZipFile, KeyError) as error:
        raise OSError(f"{archive} cannot be read: {error}") from error
