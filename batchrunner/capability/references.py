"""The values that a function references: defaults, closure, globals, attributes of modules."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from batchrunner.capability.functions import is_dispatched
from batchrunner.capability.reduction import is_name
from batchrunner.capability.values import is_plain, name_of

Path = tuple[str, ...]

_GLOBALS = {"LOAD_GLOBAL", "LOAD_NAME"}
_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}
_VARIABLES = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FAST", "LOAD_DEREF", "LOAD_CLASSDEREF")
_BETWEEN = {"COPY", "PUSH_NULL"}
_DATA = (dict, list, tuple, set, frozenset)
_OF_DISPATCH = {"registry", "dispatch", "register", "_clear_cache"}


def references_of(function: FunctionType, is_own: Callable[[ModuleType], bool]) -> Iterator[Any]:
    """Yield the path to each value that *function* references, and the value.

    Of a module for which *is_own* is true, these include the attributes that the function reads; all
    that hold data if it passes the module on.
    """
    for (role, name), value in values_of(function):
        yield (role, name), value
        if isinstance(value, ModuleType) and is_own(value):
            chains = {chain[1:] for chain in _chains(function.__code__) if chain[0] == name}
            for chain in sorted(chains):
                yield from _follow((role, name), value, chain, is_own)
    yield from attributes_of(function)


def values_of(function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield role, name and value of each default, closure variable and global of *function*."""
    yield from _defaults(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield ("closure", name), cell.cell_contents
        except ValueError:  # not bound yet
            yield ("closure", name), None
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield ("global", name), function.__globals__[name]


def imports_of(function: FunctionType) -> Iterator[str]:
    """Yield the dotted names that *function* may import when it runs."""
    for instructions in map(list, map(dis.get_instructions, _codes(function.__code__))):
        base = ""
        for instruction in instructions:
            if instruction.opname == "IMPORT_NAME":
                base = instruction.argval
                yield base
            elif instruction.opname == "IMPORT_FROM":
                yield f"{base}.{instruction.argval}"


def attributes_of(function: FunctionType) -> Iterator[tuple[Path, Any]]:
    """Yield the attributes that were set on *function* itself."""
    for name, value in sorted(vars(function).items()):
        of_dispatch = name in _OF_DISPATCH and is_dispatched(function)
        if is_name(name) and not name.startswith("__") and not of_dispatch:
            yield ("attribute", name), value


def arguments_of(value: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the function of a `functools.partial`, or a partial method, and its arguments."""
    yield (), value.func
    for name, argument in (*enumerate(value.args), *value.keywords.items()):
        yield ("partial", str(name)), argument


def registered_with(function: Any) -> Iterator[tuple[Path, Any]]:
    """Yield the functions registered with a `functools.singledispatch` *function*, by type."""
    for kind, inner in function.registry.items():
        name = name_of(kind).removeprefix("builtins.")
        yield () if kind is object else ("registered", name), inner
    yield from attributes_of(function)


def _defaults(function: FunctionType) -> Iterator[tuple[tuple[str, str], Any]]:
    defaults = function.__defaults__ or ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield ("default", name), value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield ("default", name), value


def _follow(
    path: Path, value: Any, chain: Path, is_own: Callable[[ModuleType], bool]
) -> Iterator[tuple[Path, Any]]:
    for name in chain:
        if not isinstance(value, ModuleType) or not is_own(value):
            break
        if name not in vars(value):  # not imported yet, or provided by `__getattr__` only
            return
        path, value = (*path, name), vars(value)[name]
        if not isinstance(value, ModuleType) or not is_own(value):
            yield path, value
            return
    if isinstance(value, ModuleType):
        named = sorted(item for item in vars(value).items() if not item[0].startswith("__"))
        yield from (((*path, n), v) for n, v in named if is_plain(v) or type(v) in _DATA)


@functools.lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> tuple[str, ...]:
    instructions = (i for inner in _codes(code) for i in dis.get_instructions(inner))
    return tuple(sorted({i.argval for i in instructions if i.opname in _GLOBALS}))


@functools.lru_cache(maxsize=4096)
def _chains(code: CodeType) -> frozenset[Path]:
    """Return each variable that *code* reads, with the attributes read from it, such as `a.b.c`."""
    return frozenset(chain for inner in _codes(code) for chain in _chains_of_one(inner))


def _chains_of_one(code: CodeType) -> Iterator[Path]:
    chain: Path = ()
    for instruction in dis.get_instructions(code):
        if chain and instruction.opname in _ATTRIBUTES:
            chain = (*chain, instruction.argval)
        elif not chain or instruction.opname not in _BETWEEN:
            if chain:
                yield chain
            chain = _variable(instruction)
    if chain:
        yield chain


def _variable(instruction: dis.Instruction) -> Path:
    if not instruction.opname.startswith(_VARIABLES):
        return ()
    # Later versions of Python may load two variables at once; attributes are read from the second.
    name = instruction.argval
    return (name[-1] if isinstance(name, tuple) else name,)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and the code of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
