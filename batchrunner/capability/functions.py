"""What a function is made of, beside its module: its own code, and the values that it reaches."""

from __future__ import annotations

import ast
import dis
import enum
import functools
import inspect
import textwrap
from collections.abc import Iterator
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

from batchrunner.capability.definitions import hash_of
from batchrunner.capability.finding import Module, Owner

_GENERATED = ("__dataclass", "__pydantic", "_abc_")
_CACHED = type(functools.cache(len))
_BY_PYTHON = (property, MemberDescriptorType, GetSetDescriptorType, DynamicClassAttribute)
_OF_A_CLASS = ("__annotations__", "_is_protocol", "_is_runtime_protocol")
_BY_NAME = {"LOAD_GLOBAL", "LOAD_NAME"}


def code_hash(function: FunctionType) -> str:
    """Return a hash of the code of one function: of its source, or else of what it was compiled to.

    That of another minor version of Python then counts as changed. So it does for a lambda, whose
    source cannot be told from that of another one on the same line.
    """
    if function.__name__ != "<lambda>":
        try:
            return source_hash(function)
        except (OSError, TypeError, SyntaxError, ValueError):
            pass  # typed at a prompt, or made by other code
    return hash_of(_compiled(function.__code__))


def source_hash(kind: Any) -> str:
    """Return a hash of the source of a function or class; comments and layout don't count.

    Raises:
        OSError, TypeError, SyntaxError, ValueError: It has none.
    """
    return hash_of(ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind)))))


def values_of(function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield the values that *function* reaches, by what they are to it and by their name."""
    yield from _defaults(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield ("closure", name), cell.cell_contents
        except ValueError:  # not bound yet
            yield ("closure", name), None
    for name in _names(function.__code__):
        if name in function.__globals__:
            yield ("global", name), function.__globals__[name]


def imports_of(function: FunctionType) -> Iterator[str]:
    """Yield the dotted names that *function* may import when it runs."""
    for instructions in map(list, map(dis.get_instructions, codes(function.__code__))):
        base = ""
        for instruction in instructions:
            if instruction.opname == "IMPORT_NAME":
                base = instruction.argval
                yield base
            elif instruction.opname == "IMPORT_FROM":
                yield f"{base}.{instruction.argval}"


def is_generated(method: FunctionType, kind: type) -> bool:
    """Tell whether a decorator of Python's own made *method*: it is another one in each Python."""
    file = method.__code__.co_filename
    made_here = (
        file.startswith("<") or Module("", Path(file), is_package=False).owner is Owner.PYTHON
    )
    return hasattr(kind, "__dataclass_fields__") and made_here


def is_dispatched(value: Any) -> bool:
    """Tell whether *value* is a function by `functools.singledispatch`."""
    return isinstance(value, FunctionType) and isinstance(
        vars(value).get("registry"), MappingProxyType
    )


def is_method(name: str, member: Any, kind: type) -> bool:
    """Tell whether *member* is the function that the body of *kind* defines as *name*."""
    is_here = isinstance(member, FunctionType) and member.__module__ == kind.__module__
    is_called_so = is_here and member.__qualname__ == f"{kind.__qualname__}.{name}"
    return is_called_so and not is_dispatched(member)


def may_be_set(name: str, kind: type) -> bool:
    """Tell whether attribute *name* of *kind* may hold something else than its source says.

    What Python makes of enums and named tuples is another in each version of it.
    """
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    by_python = is_named_tuple or issubclass(kind, enum.Enum)
    return name not in _OF_A_CLASS and not by_python


def is_written(name: str, member: Any) -> bool:
    """Tell whether somebody wrote *member* of a class, rather than Python or a decorator."""
    kept = name in ("__call__", "__annotations__") or not name.startswith(("__", *_GENERATED))
    return kept and not isinstance(member, _BY_PYTHON)


def unwrapped(value: Any) -> Any:
    """Return the function below what Python itself wraps around functions; else *value*."""
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


def _defaults(function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield ("default", name), value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield ("default", name), value


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType) -> tuple[str, ...]:
    found = (i for inner in codes(code) for i in dis.get_instructions(inner))
    return tuple(sorted({i.argval for i in found if i.opname in _BY_NAME}))


def _compiled(code: CodeType) -> str:
    constants = list(map(_constant, code.co_consts))
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_code, names, code.co_flags, constants))


def _constant(value: Any) -> str:
    if isinstance(value, CodeType):
        return _compiled(value)
    if isinstance(value, frozenset):  # `x in {1, 2}`: its order is that of this process
        return f"{{{', '.join(sorted(map(_constant, value)))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_constant, value))})"
    return repr(value)
