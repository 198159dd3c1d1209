"""Classifies functions, classes and members, as the user's or generated, and hashes their code."""

from __future__ import annotations

import ast
import enum
import functools
import inspect
import textwrap
from pathlib import Path
from types import (
    CodeType,
    DynamicClassAttribute,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
)
from typing import Any

from batchrunner.capability.finding import Module, ModuleOwner
from batchrunner.capability.syntax import hash_of

_GENERATED = ("__dataclass", "__pydantic", "_abc_")
_CACHED = type(functools.cache(len))
_BY_PYTHON = (property, MemberDescriptorType, GetSetDescriptorType, DynamicClassAttribute)
_OF_A_CLASS = ("__annotations__", "_is_protocol", "_is_runtime_protocol")


def code_hash(function: FunctionType) -> str:
    """Return a hash of a function's source or, where there is none, of its compiled code.

    Compiled code differs between minor versions of Python, and then counts as changed. A lambda is
    always hashed by its compiled code, since `inspect` returns the same source for two on one line.
    """
    if function.__name__ != "<lambda>":
        try:
            return source_hash(function)
        except (OSError, TypeError, SyntaxError, ValueError):
            pass  # it has no source: typed at a prompt, or generated
    return hash_of(_compiled(function.__code__))


def source_hash(kind: Any) -> str:
    """Return a hash of the source of a function or class; comments and layout don't count.

    Raises:
        OSError, TypeError, SyntaxError, ValueError: It has no source.
    """
    return hash_of(ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind)))))


def is_generated(method: FunctionType, kind: type) -> bool:
    """Return whether `dataclass` generated *method*, with code that differs by Python version."""
    file = method.__code__.co_filename
    made_here = (
        file.startswith("<") or Module("", Path(file), is_package=False).owner is ModuleOwner.PYTHON
    )
    return hasattr(kind, "__dataclass_fields__") and made_here


def is_dispatched(value: Any) -> bool:
    """Return whether *value* is a function decorated with `functools.singledispatch`."""
    return isinstance(value, FunctionType) and isinstance(
        vars(value).get("registry"), MappingProxyType
    )


def is_method(name: str, member: Any, kind: type) -> bool:
    """Return whether *member* is the function that the body of *kind* defines as *name*."""
    is_here = isinstance(member, FunctionType) and member.__module__ == kind.__module__
    is_called_so = is_here and member.__qualname__ == f"{kind.__qualname__}.{name}"
    return is_called_so and not is_dispatched(member)


def may_be_set(name: str, kind: type) -> bool:
    """Return whether attribute *name* of class *kind* may have another value than its source says.

    False for enums and named tuples: Python generates their attributes, differently by version.
    """
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    by_python = is_named_tuple or issubclass(kind, enum.Enum)
    return name not in _OF_A_CLASS and not by_python


def is_written(name: str, member: Any) -> bool:
    """Return whether the user wrote *member* of a class, rather than Python or a decorator."""
    has_users_name = name in ("__call__", "__annotations__") or not name.startswith(
        ("__", *_GENERATED)
    )
    return has_users_name and not isinstance(member, _BY_PYTHON)


def unwrapped(value: Any) -> Any:
    """Return the function inside Python's own wrappers, such as `property`; else *value* itself."""
    while True:
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.cached_property):
            value = value.func
        elif isinstance(value, functools.singledispatchmethod):
            value = value.dispatcher
        elif type(value) is _CACHED:
            value = value.__wrapped__
        else:
            return value


def _compiled(code: CodeType) -> str:
    constants = list(map(_constant, code.co_consts))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_code, names, code.co_flags, constants))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _compiled(value)
    if isinstance(value, frozenset):  # `x in {1, 2}`: the order of a set differs by process
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)
