"""The code of a capability as hashes: of its modules, and of the values that an object holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.capability.finding import find_module
from batchrunner.capability.modules import Modules
from batchrunner.capability.objects import ObjectWalker
from batchrunner.capability.target import not_found
from batchrunner.errors import CapabilityImportError

_ITSELF = "itself"


@dataclass(frozen=True, slots=True)
class Code:
    """The code of a capability, as hashes.

    Attributes:
        modules: By `Module.place`, for each of the user's modules: a hash for each name that it defines,
            as JSON.
        values: By path: each value that a capability passed as an object holds, as text or as a hash.
        installed: Names of the installed modules that the capability imports.
        opaque: Paths of the values that cannot be hashed: only their type counts.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    installed: frozenset[str] = frozenset()
    opaque: tuple[tuple[str, ...], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was read, because `capability.version` stands in for the code."""
        return not (self.modules or self.values or self.installed)


def code_of(targets: Iterable[str], *, handed_over: Any = None) -> Code:
    """Return the code of *targets*, which are not imported, and of an object *handed_over*, if any.

    It covers the modules of the targets and all modules of the user's that these import. A module is
    the user's if it is outside of Python's library and of installed packages, or in the package of
    a target.

    Raises:
        CapabilityImportError: A module cannot be found or parsed.
    """
    modules = Modules()
    for target in targets:
        _add_target(modules, target)
    walker = ObjectWalker(modules)
    if handed_over is not None:
        walker.read_root(handed_over)
    values = {path or (_ITSELF,): text for path, text in walker.values.items()}
    opaque = tuple(path or (_ITSELF,) for path in walker.opaque)
    return Code(modules.own, values, frozenset(modules.installed), opaque)


def _add_target(modules: Modules, target: str) -> None:
    name = target.partition(":")[0]
    # `Modules.add` would report the module alone; the user wants to read which target names it.
    if find_module(name) is None:
        raise CapabilityImportError(not_found(target, missing=name))
    modules.add(name, is_target=True)
