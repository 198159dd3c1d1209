"""What a module imports, wherever in it, read from its syntax tree: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from batchrunner.capability.finding import Module

_DYNAMIC = {"import_module", "__import__"}


def imported_names(tree: ast.Module, module: Module) -> Iterator[str]:
    """Yield the dotted names that *module* may import.

    `from a import b` gives `a` and `a.b`, which may be a module or not. Imports inside functions
    and conditions count, and dynamic ones whose argument is a literal.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(node, module)
        elif isinstance(node, ast.Call):
            yield from _dynamic(node, module)


def exported_names(tree: ast.Module) -> Iterator[str]:
    """Yield what `from module import *` takes: the literals of `__all__`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                found = ast.walk(statement.value) if statement.value else ()
                texts = (node.value for node in found if isinstance(node, ast.Constant))
                yield from (text for text in texts if isinstance(text, str))


def absolute(name: str, *, level: int, module: Module) -> str:
    """Return the dotted name that *name*, with *level* dots before it, has in *module*."""
    if level == 0:
        return name
    parts = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    parents = parts[: len(parts) - level + 1]
    return ".".join([*parents, name] if name else parents)


def _from(node: ast.ImportFrom, module: Module) -> Iterator[str]:
    base = absolute(node.module or "", level=node.level, module=module)
    if base:
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _dynamic(node: ast.Call, module: Module) -> Iterator[str]:
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if called in _DYNAMIC and node.args and isinstance(node.args[0], ast.Constant):
        name = node.args[0].value
        if isinstance(name, str):
            bare = name.lstrip(".")
            yield absolute(bare, level=len(name) - len(bare), module=module)
