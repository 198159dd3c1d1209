"""What a module defines, a hash for each: so that a change has a name."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator

WHOLE = "*"
"""The name of the module as a whole: its hash also holds the order of the statements."""

_DOCSTRING, _IMPORTS, _REST = "docstring", "imports", "other statements"


def definitions(tree: ast.Module) -> dict[str, str]:
    """Return a hash for each name that *tree* defines at its top, for each method, and for the rest.

    Comments and layout don't count. What is defined several times has one hash of all of it.
    """
    named = list(_named(tree))
    texts: dict[str, list[str]] = {}
    for name, text in named:
        texts.setdefault(name, []).append(text)
    return {
        **{name: hash_of("\n".join(found)) for name, found in sorted(texts.items())},
        WHOLE: hash_of("\n".join(text for _, text in named)),
    }


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
