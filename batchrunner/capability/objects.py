"""Finds the code of a capability passed as an object: its modules, and all values that it holds."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

from batchrunner.capability.finding import ModuleOwner
from batchrunner.capability.functions import (
    code_hash,
    is_dispatched,
    is_generated,
    is_method,
    is_written,
    may_be_set,
    source_hash,
    unwrapped,
)
from batchrunner.capability.modules import Modules
from batchrunner.capability.reduction import SPREAD, is_name, named_parts, reduced
from batchrunner.capability.references import (
    Path,
    arguments_of,
    imports_of,
    references_of,
    registered_with,
    values_of,
)
from batchrunner.capability.values import (
    OpaqueValueError,
    ValueLimit,
    digest,
    is_plain,
    name_of,
    text_of,
)

HASH = "sha256:"
_CYCLE = "a cycle"
_MOST_STEPS = 24
_CODE = (FunctionType, MethodType, functools.partial, type)
_SEARCHED = (ModuleOwner.USER, ModuleOwner.PACKAGE)


class ObjectWalker:
    """Walks all objects that a capability references, and records the text or hash of each value.

    Attributes:
        values: By path: short and plain values as text, others as a hash.
        opaque: Paths to the values that cannot be hashed: only their type counts.
    """

    def __init__(self, modules: Modules) -> None:
        self.values: dict[Path, str] = {}
        self.opaque: list[Path] = []
        self._modules = modules
        # With the objects themselves, since Python would reuse the id of a freed one.
        self._met: dict[int, tuple[Path, Any]] = {}
        # Ids of the values on the path from the root: meeting one of them again is a cycle.
        self._open: set[int] = set()
        self._queue: deque[tuple[Any, Path, ModuleOwner | None]] = deque()
        self._texts: dict[int, tuple[str, Any]] = {}
        self._has_cycle = False
        self._limit = ValueLimit()

    def read_root(self, value: Any) -> None:
        """Read the capability *value*. Its package counts as the user's, even if it is installed.

        Raises:
            CapabilityImportError: Its module cannot be parsed.
        """
        kind = unwrapped(value)
        if isinstance(kind, FunctionType | type) and self._owner(kind) in _SEARCHED:
            self._modules.add(kind.__module__, is_target=True)
        is_instance = not isinstance(kind, FunctionType | MethodType | type | functools.partial)
        self._read_all(value, ("instance",) if is_instance else ())

    def _read_all(self, value: Any, path: Path) -> None:
        self._read(value, path)
        self._read_queue()

    def _read(self, value: Any, path: Path) -> None:
        """Read *value*, which is at *path*; queue the functions and classes that it references."""
        value = unwrapped(value)
        with self._entered(value) as is_new:
            if not is_new:
                self.values[path] = _CYCLE
            elif isinstance(value, functools.partial | functools.partialmethod):
                self._read_each(arguments_of(value), path)
            elif isinstance(value, MethodType):
                self._read_method(value, path)
            elif is_dispatched(value):
                self._read_each(registered_with(value), path)
            elif isinstance(value, FunctionType | type):
                self._queue_definition(value, path)
            elif isinstance(value, ModuleType):
                self.values[path] = f"module {value.__name__}"
                self._modules.add_imported([value.__name__])
            else:
                self._read_value(value, path)

    @contextmanager
    def _entered(self, value: Any) -> Iterator[bool]:
        is_new = id(value) not in self._open
        self._has_cycle |= not is_new
        self._open.add(id(value))
        try:
            yield is_new
        finally:
            if is_new:
                self._open.discard(id(value))

    def _read_each(self, parts: Iterable[tuple[Path, Any]], path: Path) -> None:
        for step, inner in parts:
            self._read(inner, (*path, *step))

    def _read_method(self, value: MethodType, path: Path) -> None:
        self.values[(*path, "method")] = value.__func__.__qualname__
        self._read(value.__self__, (*path, "instance"))

    def _queue_definition(self, value: Any, path: Path) -> None:
        """Queue a function or a class, each only once: functions may reference one another."""
        if id(value) in self._met:
            first = ".".join(self._met[id(value)][0]) or "itself"
            self.values[path] = f"<{first}>"
            return
        owner = self._owner(value)
        if owner is not None:
            self.values[path] = name_of(value)
            self._modules.add_imported([value.__module__])
        path = self._shortened(path, value, owner)
        self._met[id(value)] = path, value
        self._queue.append((value, path, owner))

    def _shortened(self, path: Path, value: Any, owner: ModuleOwner | None) -> Path:
        """Return *path*; if it is long, the name of *value* in its place, unless that is taken."""
        name = name_of(value)
        if len(path) <= _MOST_STEPS or owner is None or (name,) in self.values or "<" in name:
            return path
        self.values[(name,)] = "far away"  # reserves the name
        return (name,)

    def _read_queue(self) -> None:
        """Read the queue, nearest first: paths stay short, and call chains may have any length."""
        while self._queue:
            value, path, owner = self._queue.popleft()
            # No owner: it is from a script or a prompt, so no module's hash covers its code.
            if owner is None or owner is ModuleOwner.USER:
                read = self._read_class if isinstance(value, type) else self._read_function
                read(value, path, in_script=owner is None)
            elif isinstance(value, FunctionType):
                self._read_wrapper(value, path)

    def _read_wrapper(self, value: FunctionType, path: Path) -> None:
        """Read the functions in a library function's closure: it may wrap one of the user's."""
        for (role, name), inner in values_of(value):
            if role == "closure" and isinstance(unwrapped(inner), _CODE):
                self._read(inner, (*path, role, name))

    def _owner(self, value: Any) -> ModuleOwner | None:
        return self._modules.owner_of(value.__module__)

    def _read_function(self, value: FunctionType, path: Path, *, in_script: bool) -> None:
        if in_script:
            self._modules.add_imported(imports_of(value))
        if in_script or "<" in value.__qualname__:  # one function may define two of the same name
            self.values[path] = HASH + code_hash(value)
        self._read_each(references_of(value, self._modules.holds), path)

    def _read_class(self, value: type, path: Path, *, in_script: bool) -> None:
        for base in value.__bases__:
            if base is not object and self._owner(base) in (None, ModuleOwner.USER):
                self._read(base, (*path, "base", base.__name__))
        has_source = in_script and self._has_source(value, path)
        is_bare = in_script and not has_source  # no source to hash: its members are read one by one
        # The path to the class of an instance ends with `class` already.
        below = path if path[-1:] == ("class",) else (*path, "class")
        for name, member in sorted(vars(value).items()):
            inner = unwrapped(member)
            if is_method(name, inner, value):
                if not is_generated(inner, value):
                    self._read_method_of_class(inner, (*below, name), in_script=is_bare)
            elif is_written(name, member) and (is_bare or may_be_set(name, value)):
                self._read(member, (*below, name))

    def _has_source(self, value: type, path: Path) -> bool:
        try:
            self.values[path] = HASH + source_hash(value)
        except (OSError, TypeError, SyntaxError, ValueError):  # typed at a prompt
            self.values[path] = name_of(value)
            return False
        return True

    def _read_method_of_class(self, value: FunctionType, path: Path, *, in_script: bool) -> None:
        """Read what a method references; if *in_script*, hash its code: its class has no source."""
        if id(value) not in self._met:
            self._met[id(value)] = path, value
            if self._owner(value) is None:
                self._modules.add_imported(imports_of(value))
            if in_script:
                self.values[path] = HASH + code_hash(value)
            references = references_of(value, self._modules.holds)
            # `super()` closes over the class, which is being read already.
            self._read_each((one for one in references if one[0][1] != "__class__"), path)

    def _read_value(self, value: Any, path: Path) -> None:
        """Read a value that is not code: part by part if the parts have names, else as a whole."""
        try:
            self._limit.count(depth=len(self._open))
            is_own = self._owner(type(value)) in (None, ModuleOwner.USER)
            parts = named_parts(value, is_own=is_own)
            if parts is None:
                self.values[path] = _shown(value, self._whole(value))
                return
        except (OpaqueValueError, RecursionError):
            self.values[path] = f"a {name_of(type(value))}"
            self.opaque.append(path)
            return
        # Record the type, so that an empty container, or a list for a tuple, is a difference.
        if type(value) in SPREAD:
            self.values[path] = f"a {type(value).__name__}"
        for name, inner in parts.items():
            self._read(inner, (*path, name))

    def _text(self, value: Any) -> str:
        """Return the whole of *value* as text.

        Raises:
            OpaqueValueError: *value*, or a part of it, cannot be hashed.
        """
        self._limit.count()
        with self._entered(value) as is_new:
            return self._whole(value) if is_new else _CYCLE

    def _whole(self, value: Any) -> str:
        if isinstance(unwrapped(value), FunctionType | MethodType | type | ModuleType):
            return self._text_of_code(value)
        text = text_of(value, self._text)
        return self._text_of_object(value) if text is None else text

    def _text_of_code(self, value: Any) -> str:
        if id(value) not in self._texts:
            alone = ObjectWalker(self._modules)
            # Read alone, even if it was read before: its text must not depend on other values.
            alone._open, alone._limit = self._open - {id(value)}, self._limit
            alone._texts = self._texts
            alone._read_all(value, ())
            self.opaque += alone.opaque
            text = digest(repr(sorted(alone.values.items())))
            if alone._has_cycle:  # the path decides where a cycle is cut: not to be reused
                self._has_cycle = True
                return text
            self._texts[id(value)] = text, value
        return self._texts[id(value)][0]

    def _text_of_object(self, value: Any) -> str:
        maker, arguments, state, items, pairs = reduced(value)
        name = name_of(type(value))
        if self._owner(type(value)) in (None, ModuleOwner.USER):
            name = f"{name} {self._text_of_code(type(value))}"
        inner = ", ".join(map(self._text, (arguments, state, items, pairs)))
        return f"{name} by {name_of(maker)}({inner})"


def _shown(value: Any, text: str) -> str:
    return text if is_plain(value) and is_name(text) else HASH + digest(text)
