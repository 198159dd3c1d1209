"""Snapshots of the user's modules in one process, for a worker to compare with the driver's."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import PurePosixPath

from batchrunner.capability.finding import ModuleOwner, find_module
from batchrunner.capability.modules import source_of


@dataclass(frozen=True, slots=True)
class ModuleSnapshot:
    """The owner and the definitions of a module, as one process finds them.

    Attributes:
        owner: Its owner in this process, by the folder that its file is in.
        definitions: A hash for each name that it defines, as JSON.
    """

    owner: ModuleOwner
    definitions: str


_first_snapshots: dict[str, tuple[ModuleSpec, ModuleSnapshot]] = {}


def snapshots_of(modules: Mapping[str, str]) -> dict[str, ModuleSnapshot]:
    """Return a snapshot of each of *modules*, which maps `Module.place` to definitions."""
    located = ((place, find_module(name_at(place))) for place in modules)
    return {
        place: ModuleSnapshot(module.owner, modules[place])
        for place, module in located
        if module is not None
    }


def snapshots_from_files(expected: Mapping[str, ModuleSnapshot]) -> dict[str, ModuleSnapshot]:
    """Return snapshots of the modules in *expected*, read from their files on this machine now.

    A module is left out if it is missing here, or if it is installed here but lay in a folder of the
    driver's: on a cluster, the capability may be part of the image.
    """
    importlib.invalidate_caches()  # of two files written in one tick, the second would be missed
    snapshots = {place: _snapshot_from_file(place) for place in expected}
    return {
        place: snapshot
        for place, snapshot in snapshots.items()
        if snapshot is not None and snapshot.owner is expected[place].owner
    }


def snapshots_as_imported(from_files: Mapping[str, ModuleSnapshot]) -> dict[str, ModuleSnapshot]:
    """Return snapshots of the modules as this process has imported them.

    Python keeps no source of an imported module, so its snapshot is the one that *from_files* had at
    the first call after the import. A module that is not imported gets the snapshot of its file.
    """
    return {place: _as_imported(name_at(place), snapshot) for place, snapshot in from_files.items()}


def _as_imported(name: str, from_file: ModuleSnapshot) -> ModuleSnapshot:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None:
        return from_file
    # Each import, and each reload, creates a new spec.
    if name not in _first_snapshots or _first_snapshots[name][0] is not spec:
        _first_snapshots[name] = spec, from_file
    return _first_snapshots[name][1]


def _snapshot_from_file(place: str) -> ModuleSnapshot | None:
    module = find_module(name_at(place))
    if module is None or module.origin is None:
        return None
    if module.origin.suffix != PurePosixPath(place).suffix:  # compiled here, source there
        return None
    return ModuleSnapshot(module.owner, source_of(module).definitions)


def name_at(place: str) -> str:
    """Return the dotted name of the module at *place*, the inverse of `Module.place`."""
    *parents, file = place.split("/")
    last = file.partition(".")[0]
    return ".".join(parents if last == "__init__" else [*parents, last])
