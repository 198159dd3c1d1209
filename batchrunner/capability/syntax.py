"""What a module defines and imports, read from its syntax tree: nothing is run."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

from batchrunner.capability.finding import Module

WHOLE = "*"
"""Key of the hash of the whole module, which also covers the order of the statements."""

_DOCSTRING, _IMPORTS, _REST = "docstring", "imports", "other statements"
_DYNAMIC = {"import_module", "__import__"}


def definitions(tree: ast.Module) -> dict[str, str]:
    """Return a hash for each top-level name and each method that *tree* defines, and for the rest.

    Comments and layout don't count. A name that is defined several times has one hash for all.
    """
    named = list(_named(tree))
    texts: dict[str, list[str]] = {}
    for name, text in named:
        texts.setdefault(name, []).append(text)
    # By name, so that messages can name a change; as a whole, to detect a moved statement.
    return {
        **{name: hash_of("\n".join(of_name)) for name, of_name in sorted(texts.items())},
        WHOLE: hash_of("\n".join(text for _, text in named)),
    }


def imported_names(tree: ast.Module, module: Module) -> Iterator[str]:
    """Yield the dotted names that *module* may import.

    `from a import b` gives `a` and `a.b`, which may be a module or not. Imports inside functions
    and conditions count. So do dynamic imports whose arguments are literals, also where *tree* gives
    `import_module` another name.
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
    """Yield the names that `from module import *` binds: the literals of `__all__`."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
                nodes = ast.walk(statement.value) if statement.value else ()
                texts = (node.value for node in nodes if isinstance(node, ast.Constant))
                yield from (text for text in texts if isinstance(text, str))


def hash_of(text: str | bytes) -> str:
    """Return a short hash of *text*."""
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    return hashlib.sha256(data).hexdigest()[:16]


def _named(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for index, statement in enumerate(tree.body):
        if isinstance(statement, ast.ClassDef):
            yield from _class(statement)
        else:
            yield _name(statement, index), ast.unparse(statement)


def _class(statement: ast.ClassDef) -> Iterator[tuple[str, str]]:
    methods = [s for s in statement.body if isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef)]
    rest = [s for s in statement.body if s not in methods]
    # Without its methods, so that a changed method is one difference, not two.
    bare = ast.ClassDef(**{**vars(statement), "body": rest or [ast.Pass()]})
    yield statement.name, ast.unparse(bare)
    for method in methods:
        yield f"{statement.name}.{method.name}", ast.unparse(method)


def _name(statement: ast.stmt, index: int) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.Import() | ast.ImportFrom():
            return _IMPORTS
        case ast.Assign(targets=targets):
            return _targets(targets)
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            return _targets([target])
        case ast.Expr(value=ast.Constant(value=str())) if index == 0:
            return _DOCSTRING
        case _:
            return _REST


def _targets(targets: list[ast.expr]) -> str:
    names = [node.id for t in targets for node in ast.walk(t) if isinstance(node, ast.Name)]
    return ", ".join(dict.fromkeys(names)) or _REST


def _absolute(name: str, *, level: int, module: Module) -> str:
    """Return the absolute form of *name*, which *module* imports with *level* leading dots."""
    if level == 0:
        return name
    parts = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    parents = parts[: len(parts) - level + 1]
    return ".".join([*parents, name] if name else parents)


def _from(node: ast.ImportFrom, module: Module) -> Iterator[str]:
    base = _absolute(node.module or "", level=node.level, module=module)
    if base:
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _importers(tree: ast.Module) -> set[str]:
    """Return the names under which *tree* calls `import_module` and `__import__`."""
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
    # The second argument of `__import__` is its globals: then names are relative to *module*.
    package = _text(_argument(node, 1, keywords.get("package")), module)
    if package is None:
        yield _absolute(bare, level=level, module=module)
    else:
        yield _absolute(bare, level=level, module=Module(package, None, is_package=True))


def _argument(node: ast.Call, index: int, named: ast.expr | None) -> ast.expr | None:
    return node.args[index] if index < len(node.args) else named


def _text(node: ast.expr | None, module: Module) -> str | None:
    """Return the text that *node* evaluates to in *module*; None if it is not a constant."""
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
