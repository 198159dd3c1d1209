"""The user's modules that a capability is made of: those named, and all that they import."""

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

from batchrunner.capability.definitions import WHOLE, definitions, hash_of
from batchrunner.capability.finding import OURS, Module, Owner, find_module, loaded_module
from batchrunner.capability.imports import exported_names, imported_names
from batchrunner.errors import CapabilityImportError


@dataclass(frozen=True, slots=True)
class Source:
    """A module's file, read once.

    Attributes:
        definitions: A hash for each name that it defines, as JSON.
        imports: Dotted names that it may import.
        exports: What a star takes of it.
        problem: Why it could not be read as Python.
    """

    definitions: str
    imports: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    problem: str = ""


@dataclass(slots=True)
class Modules:
    """The user's modules, each looked at once.

    Attributes:
        own: What they define, by their place in the folder that they are imported from.
        installed: What they import of installed packages: the names of top-level modules, or of
            modules in a namespace.
    """

    own: dict[str, str] = field(default_factory=dict)
    installed: set[str] = field(default_factory=set)
    _tops: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _owners: dict[str, Owner | None] = field(default_factory=dict)

    def add(self, name: str, *, is_target: bool) -> None:
        """Add module *name* and what it imports.

        Args:
            name: Of the module.
            is_target: The capability is in it: so it is the user's, wherever it is installed.

        Raises:
            CapabilityImportError: It cannot be found, read or parsed.
        """
        importlib.invalidate_caches()  # of two files written in one tick, the second would be missed
        top = name.partition(".")[0]
        if is_target and top != OURS:
            self._tops.add(top)
        module = find_module(name) or loaded_module(name)
        if module is None or module.origin is None:
            raise CapabilityImportError(f"the source of the module {name!r} cannot be found")
        if problem := source_of(module).problem:
            raise CapabilityImportError(f"the module {name!r}: {module.origin}: {problem}")
        self._follow([name])

    def add_imported(self, names: Iterable[str]) -> None:
        """Add what is there of *names*, which code that is in no module imports."""
        self._follow(names)

    def is_own(self, module: Module) -> bool:
        """Tell whether *module* is the user's."""
        return module.owner is Owner.USER or module.name.partition(".")[0] in self._tops

    def owner_of(self, name: Any) -> Owner | None:
        """Return whose the module is that an object says it is of; None for a script's, or no file."""
        if not isinstance(name, str) or name in ("__main__", ""):
            return None
        module = loaded_module(name)
        if module is None:
            known = name in sys.builtin_module_names or name in sys.stdlib_module_names
            return Owner.PYTHON if known else None
        return Owner.USER if self.is_own(module) else module.owner

    def holds(self, module: ModuleType) -> bool:
        """Tell whether *module* is the user's, or in no file and in nobody's package."""
        top = module.__name__.partition(".")[0]
        return all(self.owner_of(name) in (None, Owner.USER) for name in {top, module.__name__})

    def _follow(self, names: Iterable[str]) -> None:
        # With a list of its own, since a chain of imports may be longer than Python's stack.
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self._seen and self._may_be_own(name):
                self._seen.add(name)
                waiting += self._look(name)

    def _may_be_own(self, name: str) -> bool:
        """Look at the top of *name* only: most imports are of installed packages, and end here."""
        top = name.partition(".")[0]
        if top not in self._owners:
            module = find_module(top) or loaded_module(top)
            self._owners[top] = module.owner if module else None
            if self._owners[top] is Owner.PACKAGE:
                self.installed.add(top)
        return top in self._tops or self._owners[top] in (Owner.USER, Owner.NOBODY)

    def _look(self, name: str) -> Iterator[str]:
        module = find_module(name) or loaded_module(name)
        if module is None:
            yield from self._star(name)
            return
        if "." in name:  # importing a.b runs a/__init__.py first
            yield name.rpartition(".")[0]
        if module.origin is None:
            return
        if self.is_own(module):
            source = source_of(module)
            self.own[module.place] = source.definitions
            yield from source.imports
        elif module.owner is Owner.PACKAGE:
            self.installed.add(name)

    def _star(self, name: str) -> Iterator[str]:
        package, _, last = name.rpartition(".")
        module = find_module(package) if last == "*" else None
        if module is not None and module.origin is not None and self.is_own(module):
            yield from (f"{package}.{export}" for export in source_of(module).exports)


def source_of(module: Module) -> Source:
    """Return what is known of the file of *module*."""
    try:
        data = _bytes(module.origin)
    except OSError as error:  # it is not for us to read
        return Source(json.dumps({WHOLE: "unreadable"}), problem=str(error))
    return _source_of(data, module)


@lru_cache(maxsize=4096)
def _source_of(data: bytes, module: Module) -> Source:
    """Read one file; what is no Python, such as an extension, counts byte by byte."""
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
