"""The code that a worker has imported, compared with what the driver took the fingerprint of."""

from __future__ import annotations

from collections.abc import Mapping

from batchrunner.capability import Code
from batchrunner.capability.module_snapshot import (
    ModuleSnapshot,
    snapshots_as_imported,
    snapshots_from_files,
)
from batchrunner.errors import CapabilityImportError
from batchrunner.spec.fingerprint import differences, fields_of_code
from batchrunner.worker.work import Work

_checked: set[str] = set()


def check_code(work: Work) -> None:
    """See that the modules of the capability, which were imported just now, are those of the run.

    Only the first time that this process does *work*: what is imported stays as it is, whatever
    becomes of its file.

    Raises:
        CapabilityImportError: One has changed since the driver looked, or since this process
            imported it for an earlier run.
    """
    if work.session in _checked:
        return
    now = snapshots_from_files(work.code)
    if lines := _changes(work.code, now):
        raise CapabilityImportError(
            f"the code changed while the run was going on: {lines}. Nothing that the other code "
            "made was committed; run again to decide"
        )
    if lines := _changes(snapshots_as_imported(now), now):
        raise CapabilityImportError(
            f"the code changed after this process had imported it: {lines}. Run it in a new "
            "process (in a notebook, restart the kernel)"
        )
    _checked.add(work.session)


def _changes(before: Mapping[str, ModuleSnapshot], now: Mapping[str, ModuleSnapshot]) -> str:
    """Say what of the modules that both know is another one *now*."""
    old = {place: before[place].definitions for place in now}
    new = {place: seen.definitions for place, seen in now.items()}
    return "; ".join(differences(fields_of_code(Code(old)), fields_of_code(Code(new))))
