"""Packs the work, and the user's functions in it, as bytes for another process."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import contained
from batchrunner.worker.work import Work


def pickled(work: Work) -> bytes:
    """Return *work* as bytes. Functions that the other process cannot import are sent by value."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(work)  # type: ignore[no-untyped-call]  # Ray is half typed
    return data


@dataclass(frozen=True, slots=True)
class Payload:
    """The work as bytes, with the folders from which unpacking it imports the user's modules.

    Attributes:
        key: The session's id: a process keeps its worker for as long as the key is the same.
        import_paths: The folders to import from.
        work: The pickled `Work`.
        beat_seconds: After how many seconds a worker sends its next heartbeat.
    """

    key: str
    import_paths: tuple[str, ...]
    work: bytes
    beat_seconds: float

    @classmethod
    def of(cls, work: Work, *, beat_seconds: float) -> Payload:
        return cls(work.session, work.import_paths, pickled(work), beat_seconds)

    def unpack(self) -> Work:
        import_from(self.import_paths)
        work: Work = pickle.loads(self.work)  # noqa: S301 - written by our driver
        return work


def unpacked(payload: Payload) -> Work:
    """Return the work; to unpack it imports the modules of the user's functions.

    Raises:
        CapabilityImportError: One of these modules, or the unpacking, raises.
    """
    try:
        return contained(payload.unpack)
    except Exception as error:
        raise CapabilityImportError(
            f"the worker cannot load the capability: {describe(error)}. Correct its module, or bring what "
            "it imports to the workers with ray.runtime_env"
        ) from error


def import_paths() -> tuple[str, ...]:
    """Return the folders that this process imports from, except those of installed packages."""
    installed = (sys.prefix, sys.base_prefix)
    paths = (os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - they stay strings
    return tuple(path for path in paths if not path.startswith(installed))


def import_from(paths: Iterable[str]) -> None:
    """Add the *paths* that exist on this machine to this process's import path."""
    present = set(sys.path)
    sys.path[:0] = [p for p in paths if p not in present and os.path.isdir(p)]  # noqa: PTH112 - a string stays one
