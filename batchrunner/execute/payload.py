"""The work as bytes, for another process; with the user's functions in it, whatever they are."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from batchrunner.worker.work import Work


def pickled(work: Work) -> bytes:
    """Return *work* as bytes. Functions that cannot be imported over there travel by value."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(work)  # type: ignore[no-untyped-call]  # Ray is half typed
    return data


@dataclass(frozen=True, slots=True)
class Payload:
    """The work as bytes, to be unpacked once the worker can import what the driver can."""

    key: str
    import_paths: tuple[str, ...]
    work: bytes

    @classmethod
    def of(cls, work: Work) -> Payload:
        return cls(work.session, work.import_paths, pickled(work))

    def unpack(self) -> Work:
        import_from(self.import_paths)
        work: Work = pickle.loads(self.work)  # noqa: S301 - written by our driver
        return work


def import_paths() -> tuple[str, ...]:
    """Return where this process imports from besides what is installed."""
    installed = (sys.prefix, sys.base_prefix)
    paths = (os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - strings they stay
    return tuple(path for path in paths if not path.startswith(installed))


def import_from(paths: Iterable[str]) -> None:
    """Let this process import from *paths* too, where it has them."""
    known = set(sys.path)
    sys.path[:0] = [p for p in paths if p not in known and os.path.isdir(p)]  # noqa: PTH112 - a string stays one
