"""What a module imports, wherever in it, read from its syntax tree: nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from batchrunner.capability.finding import Module

_DYNAMIC = {"import_module", "__import__"}


def imported_names(tree: ast.Module, module: Module) -> Iterator[str]:
    """Yield the dotted names that *module* may import.

    `from a import b` gives `a` and `a.b`, which may be a module or not. Imports inside functions
    and conditions count, and dynamic ones whose arguments are literals, by whatever name the
    function that imports goes here.
    """
    importers = _importers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(node, module)
        elif isinstance(node, ast.Call):
            yield from _dynamic(node, module, importers)


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


def _importers(tree: ast.Module) -> set[str]:
    """Return the names by which *tree* calls the functions that import."""
    names = set(_DYNAMIC)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {a.asname for a in node.names if a.asname and a.name in _DYNAMIC}
        elif isinstance(node, ast.Assign) and _called(node.value) in _DYNAMIC:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _dynamic(node: ast.Call, module: Module, importers: set[str]) -> Iterator[str]:
    if _called(node.func) not in importers:
        return
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    name = _text(_argument(node, 0, keywords.get("name")), module)
    if not name:
        return
    bare = name.lstrip(".")
    level = len(name) - len(bare)
    # `__import__` has the globals there, which are no text: then it is this module.
    package = _text(_argument(node, 1, keywords.get("package")), module)
    if package is None:
        yield absolute(bare, level=level, module=module)
    else:
        yield absolute(bare, level=level, module=Module(package, None, is_package=True))


def _argument(node: ast.Call, index: int, named: ast.expr | None) -> ast.expr | None:
    return node.args[index] if index < len(node.args) else named


def _text(node: ast.expr | None, module: Module) -> str | None:
    """Return the text that *node* is in *module*; None when that is only known once it runs."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id="__name__"):
            return module.name
        case ast.Name(id="__package__"):
            return module.name if module.is_package else module.name.rpartition(".")[0]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = [_text(left, module), _text(right, module)]
        case ast.JoinedStr(values=values):
            parts = [_text(value, module) for value in values]
        case ast.FormattedValue(value=value, format_spec=None):
            return _text(value, module)
        case _:
            return None
    return None if None in parts else "".join(filter(None, parts))
