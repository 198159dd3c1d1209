"""The single hash of the code that older checkpoints store, computed to compare with theirs."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from pathlib import Path
from types import CodeType
from typing import Any

from batchrunner.capability.finding import module_file
from batchrunner.capability.target import not_found, parse
from batchrunner.errors import CapabilityImportError


def hash_of_target(target: str) -> str:
    """Return a hash of the code of *target*'s module, without importing it.

    Comments and layout don't count, nor does what the module imports.

    Raises:
        CapabilityImportError: The module's source cannot be found or parsed.
    """
    source = module_file(target.partition(":")[0])
    if source is None:
        raise CapabilityImportError(not_found(target, missing=target.partition(":")[0]))
    return _hash(parse(source, target=target))


def hash_of_object(capability: Any) -> str:
    """Return a hash of *capability*'s module or, if a script defines it, of *capability* alone.

    A function that was typed at a prompt has no source: its compiled code is hashed, which differs
    between versions of Python.

    Raises:
        CapabilityImportError: Its source cannot be found or parsed.
    """
    module = sys.modules.get(getattr(capability, "__module__", ""))
    source = getattr(module, "__file__", None)
    # In a script, hash the object alone: the rest of the file drives the run, and may change.
    if source and module is not sys.modules["__main__"]:
        return _hash(parse(Path(source), target=repr(capability)))
    try:
        is_source = inspect.isroutine(capability) or isinstance(capability, type)
        kind = capability if is_source else type(capability)
        return _hash(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError) as error:
        if inspect.isfunction(capability):
            return hashlib.sha256(_compiled(capability.__code__).encode()).hexdigest()[:32]
        raise CapabilityImportError(
            f"the source of {capability!r} cannot be found, so a change of it cannot be detected; "
            "give capability.version, and raise it with each change"
        ) from error


def _compiled(code: CodeType) -> str:
    constants = [_compiled(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, constants))


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:32]
