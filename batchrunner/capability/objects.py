"""The code of an object that is handed over in Python: where it comes from, and what it holds."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from batchrunner.capability.finding import Owner, loaded_module
from batchrunner.capability.functions import (
    code_hash,
    imports_of,
    is_generated,
    is_written,
    source_hash,
    unwrapped,
    values_of,
)
from batchrunner.capability.modules import Modules
from batchrunner.capability.pickled import is_name, parts_of, reduced
from batchrunner.capability.values import Budget, UnseenError, digest, is_plain, name_of, text_of

Path = tuple[str, ...]

HASH = "sha256:"
_MOST_SPREAD = 256
_SPREAD = (dict, list, tuple)
_CODE = (FunctionType, MethodType, functools.partial, type)
_SEARCHED = (Owner.USER, Owner.PACKAGE)


class Reader:
    """Reads what an object is made of.

    Attributes:
        values: As text, by the way to them: short and plain ones as they are, others as a hash.
        unseen: Ways to the values that nothing is known of but their type.
    """

    def __init__(self, modules: Modules) -> None:
        self.values: dict[Path, str] = {}
        self.unseen: list[Path] = []
        self._modules = modules
        self._met: dict[int, tuple[Path, Any]] = {}  # the objects, too: a number is used again
        self._open: set[int] = set()
        self._budget = Budget()

    def read_root(self, value: Any) -> None:
        """Read the capability itself: a package that it is installed with is the user's.

        Raises:
            CapabilityImportError: Its module cannot be parsed.
        """
        kind = unwrapped(value)
        if isinstance(kind, FunctionType | type) and self._owner(kind) in _SEARCHED:
            self._modules.add(kind.__module__, is_target=True)
        is_instance = not isinstance(kind, FunctionType | MethodType | type | functools.partial)
        self.read(value, ("instance",) if is_instance else ())

    def read(self, value: Any, path: Path) -> None:
        """Read *value*, which is reached by *path*, and all that it reaches."""
        value = unwrapped(value)
        with self._entered(value) as is_new:
            if not is_new:
                self.values[path] = "a cycle"
            elif isinstance(value, functools.partial):
                self._partial(value, path)
            elif isinstance(value, MethodType):
                self._method(value, path)
            elif isinstance(value, FunctionType | type):
                self._definition(value, path)
            elif isinstance(value, ModuleType):
                self.values[path] = f"module {value.__name__}"
                self._modules.add_imported([value.__name__])
            else:
                self._value(value, path)

    @contextmanager
    def _entered(self, value: Any) -> Iterator[bool]:
        is_new = id(value) not in self._open
        self._open.add(id(value))
        try:
            yield is_new
        finally:
            if is_new:
                self._open.discard(id(value))

    def _partial(self, value: functools.partial[Any], path: Path) -> None:
        self.read(value.func, path)
        for index, argument in enumerate(value.args):
            self.read(argument, (*path, "partial", str(index)))
        for name, argument in value.keywords.items():
            self.read(argument, (*path, "partial", name))

    def _method(self, value: MethodType, path: Path) -> None:
        self.values[(*path, "method")] = value.__func__.__qualname__
        self.read(value.__self__, (*path, "instance"))

    def _definition(self, value: Any, path: Path) -> None:
        """Read a function or a class; once, since functions refer to one another."""
        if id(value) in self._met:
            first = ".".join(self._met[id(value)][0])
            self.values[path] = f"<{first}>"
            return
        self._met[id(value)] = path, value
        owner = self._owner(value)
        if owner is not None:
            self.values[path] = name_of(value)
            self._modules.add_imported([value.__module__])
        if owner is None or owner is Owner.USER:
            parts = self._class if isinstance(value, type) else self._function
            parts(value, path, in_script=owner is None)
        elif isinstance(value, FunctionType):
            self._wrapper(value, path)

    def _wrapper(self, value: FunctionType, path: Path) -> None:
        """Read the functions that one of a library closes over: it may be wrapped around one."""
        for (role, name), inner in values_of(value):
            if role == "closure" and isinstance(unwrapped(inner), _CODE):
                self.read(inner, (*path, role, name))

    def _owner(self, value: Any) -> Owner | None:
        """Return whose module *value* is of; None when it is a script's, or of no file."""
        name = value.__module__
        if not isinstance(name, str) or name in ("__main__", ""):
            return None
        module = loaded_module(name)
        if module is None:
            known = name in sys.builtin_module_names or name in sys.stdlib_module_names
            return Owner.PYTHON if known else None
        return Owner.USER if self._modules.is_own(module) else module.owner

    def _function(self, value: FunctionType, path: Path, *, in_script: bool) -> None:
        if in_script:
            self._modules.add_imported(imports_of(value))
        if in_script or "<" in value.__qualname__:  # two of one name may be in one function
            self.values[path] = HASH + code_hash(value)
        for (role, name), inner in values_of(value):
            self.read(inner, (*path, role, name))

    def _class(self, value: type, path: Path, *, in_script: bool) -> None:
        for base in value.__bases__:
            if base is not object and self._owner(base) in (None, Owner.USER):
                self.read(base, (*path, "base", base.__name__))
        has_source = in_script and self._has_source(value, path)
        is_bare = in_script and not has_source  # nothing else tells what its members are
        below = path if path[-1:] == ("class",) else (*path, "class")
        for name, member in sorted(vars(value).items()):
            inner = unwrapped(member)
            if isinstance(inner, FunctionType) and inner.__module__ == value.__module__:
                if not is_generated(inner, value):
                    self._method_of_class(inner, (*below, name), in_script=is_bare)
            elif is_bare and is_written(name, member):
                self.read(member, (*below, name))

    def _has_source(self, value: type, path: Path) -> bool:
        try:
            self.values[path] = HASH + source_hash(value)
        except (OSError, TypeError, SyntaxError, ValueError):  # typed at a prompt
            self.values[path] = name_of(value)
            return False
        return True

    def _method_of_class(self, value: FunctionType, path: Path, *, in_script: bool) -> None:
        """Read what a method reaches, and its code unless that of its class has it."""
        if id(value) not in self._met:
            self._met[id(value)] = path, value
            if self._owner(value) is None:
                self._modules.add_imported(imports_of(value))
            if in_script:
                self.values[path] = HASH + code_hash(value)
            for (role, name), inner in values_of(value):
                if name != "__class__":
                    self.read(inner, (*path, role, name))

    def _value(self, value: Any, path: Path) -> None:
        """Read a value that is no code: spread out where that gives parts a name, else whole."""
        try:
            self._budget.spend(depth=len(path))
            parts = self._parts(value)
            if parts is None:
                self.values[path] = _shown(value, self._whole(value))
                return
        except (UnseenError, RecursionError):
            self._not_seen(value, path)
            return
        if type(value) in _SPREAD:
            self.values[path] = f"a {type(value).__name__}"
        for name, inner in parts.items():
            self.read(inner, (*path, name))

    def _parts(self, value: Any) -> Mapping[str, Any] | None:
        """Return the parts of *value* that are to be named one by one; None to take it whole."""
        if type(value) is dict and value and len(value) <= _MOST_SPREAD:
            return value if all(map(is_name, value)) else None
        if type(value) in _SPREAD[1:] and len(value) <= _MOST_SPREAD and not is_plain(value):
            return {str(index): inner for index, inner in enumerate(value)}
        if is_plain(value) or isinstance(value, BuiltinFunctionType):
            return None
        if self._owner(type(value)) not in (None, Owner.USER):
            return None
        return {"class": type(value), **parts_of(value)}

    def _text(self, value: Any) -> str:
        """Return the whole of *value* as text.

        Raises:
            UnseenError: Nothing can be told of it, or of a part of it.
        """
        self._budget.spend()
        with self._entered(value) as is_new:
            return self._whole(value) if is_new else "a cycle"

    def _whole(self, value: Any) -> str:
        if isinstance(unwrapped(value), FunctionType | MethodType | type | ModuleType):
            return self._text_of_code(value)
        text = text_of(value, self._text)
        return self._text_of_object(value) if text is None else text

    def _text_of_code(self, value: Any) -> str:
        apart = Reader(self._modules)
        # What was met elsewhere is told again: the text must not depend on what else there is.
        apart._open, apart._budget = self._open - {id(value)}, self._budget
        apart.read(value, ())
        self.unseen += apart.unseen
        return digest(repr(sorted(apart.values.items())))

    def _text_of_object(self, value: Any) -> str:
        made, arguments, state, items, pairs = reduced(value)
        name = name_of(type(value))
        if self._owner(type(value)) in (None, Owner.USER):
            name = f"{name} {self._text_of_code(type(value))}"
        inner = ", ".join(map(self._text, (arguments, state, items, pairs)))
        return f"{name} by {name_of(made)}({inner})"

    def _not_seen(self, value: Any, path: Path) -> None:
        self.values[path] = f"a {name_of(type(value))}"
        self.unseen.append(path)


def _shown(value: Any, text: str) -> str:
    return text if is_plain(value) and is_name(text) else HASH + digest(text)
