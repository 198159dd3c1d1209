"""The user's code: found, hashed and loaded by its `package.module:attribute`."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import contained


def load_target(target: str) -> Any:
    """Import the module of *target* and return the attribute.

    Raises:
        CapabilityImportError: The module cannot be imported, or has no such attribute.
    """
    module_name, _, path = target.partition(":")
    try:
        found: Any = contained(partial(importlib.import_module, module_name))
    except ModuleNotFoundError as error:
        raise CapabilityImportError(_not_found(target, missing=error.name or "")) from error
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise CapabilityImportError(_broken_import(target, error)) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise CapabilityImportError(f"capability {target!r}: {module_name} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise CapabilityImportError(
            f"capability {target!r} is a {type(found).__name__}; it must be a function or a class"
        )
    return found


def check_target(target: str) -> None:
    """Look for *target* without running any of its code.

    Raises:
        CapabilityImportError: There is no such module, or it plainly defines no such name.
    """
    module_name, _, path = target.partition(":")
    source = module_file(module_name)
    if source is None:
        raise CapabilityImportError(_not_found(target, missing=module_name))
    names = set(_defined_names(_parse(source, target=target).body))
    first = path.partition(".")[0]
    if first not in names and not names & {"*", "__getattr__"}:
        raise CapabilityImportError(f"capability {target!r}: {source} defines no {first!r}")


def module_file(name: str) -> Path | None:
    """Return the source file of module *name* without importing it or its packages."""
    path: Iterable[str] | None = None
    origin: str | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find_spec(".".join(parts[:depth]), path)
        if spec is None:
            return None
        path, origin = spec.submodule_search_locations, spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None


def _find_spec(name: str, path: Iterable[str] | None) -> Any:
    places = None if path is None else list(path)
    specs = (finder.find_spec(name, places) for finder in sys.meta_path)
    return next((spec for spec in specs if spec is not None), None)


def code_of_target(target: str) -> str:
    """Return a hash of the code of *target*'s module, without importing it.

    Comments and layout don't count. What the module imports doesn't either.

    Raises:
        CapabilityImportError: The module's source cannot be found or parsed.
    """
    source = module_file(target.partition(":")[0])
    if source is None:
        raise CapabilityImportError(_not_found(target, missing=target.partition(":")[0]))
    return _hash(_parse(source, target=target))


def code_of_object(capability: Any) -> str:
    """Return a hash of the code of a function or class: of its module, or of itself in a script.

    A function that was typed at a prompt has no source; its compiled code stands in, and that of
    another Python then counts as changed.

    Raises:
        CapabilityImportError: Neither can be found.
    """
    module = sys.modules.get(getattr(capability, "__module__", ""))
    source = getattr(module, "__file__", None)
    if source and module is not sys.modules["__main__"]:
        return _hash(_parse(Path(source), target=repr(capability)))
    try:
        kind = capability if inspect.isroutine(capability) else _class_of(capability)
        return _hash(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError) as error:
        if inspect.isfunction(capability):
            return hashlib.sha256(_compiled(capability.__code__).encode()).hexdigest()[:32]
        raise CapabilityImportError(
            f"the source of {capability!r} cannot be found, so a change of it could not be seen; "
            "give capability.version, and raise it with each change"
        ) from error


def _compiled(code: CodeType) -> str:
    constants = [_compiled(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _class_of(capability: Any) -> Any:
    return capability if isinstance(capability, type) else type(capability)


def _parse(source: Path, *, target: str) -> ast.Module:
    try:
        return ast.parse(source.read_bytes(), filename=str(source))
    except (OSError, SyntaxError, ValueError) as error:
        raise CapabilityImportError(f"capability {target!r}: {source}: {error}") from error


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:32]


def _defined_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        else:  # if, try, with, for: names may be bound inside
            inner = (node for node in ast.walk(statement) if isinstance(node, ast.stmt))
            yield from _defined_names(node for node in inner if node is not statement)


def _not_found(target: str, *, missing: str) -> str:
    module = target.partition(":")[0]
    if module == missing or module.startswith(f"{missing}."):
        return (
            f"capability {target!r}: no module {missing!r} in this Python's path; "
            "run in the folder that holds it, or install it"
        )
    return f"capability {target!r} needs the module {missing!r}, which is not installed"


def _broken_import(target: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"capability {target!r} raises when it is imported{place}: {describe(error)}"
