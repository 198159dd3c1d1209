"""The code of a capability: all that decides what it makes of a row, as far as it can be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.capability.finding import find_module
from batchrunner.capability.modules import Modules
from batchrunner.capability.objects import Reader
from batchrunner.capability.target import not_found
from batchrunner.errors import CapabilityImportError

ITSELF = "itself"


@dataclass(frozen=True, slots=True)
class Code:
    """What was seen of the code.

    Attributes:
        modules: The user's modules by their place: a hash for each name that they define, as JSON.
        values: What an object that was handed over holds, by the way to it, as text or as a hash.
        installed: Modules of installed packages that it imports.
        unseen: Ways to the values that only count by their type.
    """

    modules: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    installed: frozenset[str] = frozenset()
    unseen: tuple[tuple[str, ...], ...] = ()

    @property
    def is_known(self) -> bool:
        """Tell whether there is any: not where `capability.version` stands in for it."""
        return bool(self.modules or self.values)


def code_of(targets: Iterable[str], *, handed_over: Any = None) -> Code:
    """Return the code of *targets*, which is not imported, and of an object, if there is one.

    The code is that of the modules and of all that they import of the user's own: found outside of
    Python's library and of installed packages, or in the package of the target itself.

    Raises:
        CapabilityImportError: A module cannot be found or parsed.
    """
    modules = Modules()
    for target in targets:
        _add_target(modules, target)
    reader = Reader(modules)
    if handed_over is not None:
        reader.read_root(handed_over)
    values = {path or (ITSELF,): text for path, text in reader.values.items()}
    unseen = tuple(path or (ITSELF,) for path in reader.unseen)
    return Code(modules.own, values, frozenset(modules.installed), unseen)


def _add_target(modules: Modules, target: str) -> None:
    name = target.partition(":")[0]
    if find_module(name) is None:
        raise CapabilityImportError(not_found(target, missing=name))
    modules.add(name, is_target=True)
