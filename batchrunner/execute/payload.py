"""The work as bytes, for another process; with the user's functions in it, whatever they are."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

from batchrunner.execute.import_paths import import_from
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
