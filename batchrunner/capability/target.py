"""Find and load the user's code by its `package.module:attribute`."""

from __future__ import annotations

import ast
import importlib
import traceback
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from batchrunner.capability.finding import module_file
from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import contained


def load_target(target: str) -> Any:
    """Import the module of *target* and return the attribute.

    Raises:
        CapabilityImportError: The module cannot be imported, or the attribute is missing or cannot
            be called.
    """
    module_name, _, path = target.partition(":")
    try:
        target_object: Any = contained(partial(importlib.import_module, module_name))
    except ModuleNotFoundError as error:
        raise CapabilityImportError(not_found(target, missing=error.name or "")) from error
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise CapabilityImportError(_broken_import(target, error)) from error
    for name in path.split("."):
        if not hasattr(target_object, name):
            hint = _did_you_mean(name, dir(target_object))
            raise CapabilityImportError(
                f"capability {target!r}: {module_name} has no {path!r}{hint}"
            )
        target_object = getattr(target_object, name)
    if not callable(target_object):
        kind = type(target_object).__name__
        raise CapabilityImportError(
            f"capability {target!r} is a {kind}; it must be a function or a class"
        )
    return target_object


def check_target(target: str) -> None:
    """Check that *target* exists, without running any of its code.

    Raises:
        CapabilityImportError: There is no such module, or it plainly defines no such name.
    """
    module_name, _, path = target.partition(":")
    source = module_file(module_name)
    if source is None:
        raise CapabilityImportError(not_found(target, missing=module_name))
    names = set(_defined_names(parse(source, target=target).body))
    first = path.partition(".")[0]
    # A star import or a module's `__getattr__` may define any name, as only an import would show.
    if first not in names and not names & {"*", "__getattr__"}:
        hint = _did_you_mean(first, names)
        raise CapabilityImportError(f"capability {target!r}: {source} defines no {first!r}{hint}")


def is_plain_function(target: str) -> bool:
    """Return whether *target* is certainly a function, without running any of its code.

    False where only running the code would show: if *target* is the result of a call, is decorated,
    or is imported.
    """
    module_name, _, path = target.partition(":")
    source = module_file(module_name)
    if source is None:
        return False
    body = parse(source, target=target).body
    named = [s for s in body if path in _defined_names([s])]
    return bool(named) and all(
        isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef) and not s.decorator_list
        for s in named
    )


def parse(source: Path, *, target: str) -> ast.Module:
    """Return the syntax tree of the file *source*, which defines *target*.

    Raises:
        CapabilityImportError: The file cannot be read, or is not Python.
    """
    try:
        return ast.parse(source.read_bytes(), filename=str(source))
    except (OSError, SyntaxError, ValueError) as error:
        raise CapabilityImportError(f"capability {target!r}: {source}: {error}") from error


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


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    import difflib  # slow to import, and only a typo needs it

    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else "; define it there, or correct the name"


def not_found(target: str, *, missing: str) -> str:
    """Return the message for a *target* that needs the module *missing*, which cannot be found."""
    module = target.partition(":")[0]
    if module == missing or module.startswith(f"{missing}."):
        return (
            f"capability {target!r}: no module {missing!r} in this Python's path; "
            "run in the folder that holds it, or install it"
        )
    return f"capability {target!r} needs the module {missing!r}, which is not installed: install it"


def _broken_import(target: str, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"capability {target!r} raises when it is imported{place}: {describe(error)}"
