"""Capabilities of the job tests: those of the contract, and what only Ray's tests need."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from batchrunner.testing.job_capabilities import (
    Config,
    Dataset,
    DiesBeforeWriting,
    Evaluation,
    HoldsALock,
    Raises,
    RaisesOddly,
    Reports,
    Returns,
    Scoring,
)
from batchrunner.testing.job_capabilities import (
    JobScore as Score,
)
from batchrunner.testing.job_capabilities import SaysSecrets as _SaysSecrets

__all__ = [
    "Config",
    "Dataset",
    "DiesAfterTheEnd",
    "DiesAfterWriting",
    "DiesBeforeWriting",
    "Evaluation",
    "HoldsALock",
    "IgnoresInterrupts",
    "Raises",
    "RaisesOddly",
    "RecordsResources",
    "Reports",
    "Returns",
    "SaysSecrets",
    "Score",
    "Scoring",
]


class RecordsResources(Scoring):
    """Records what Ray gave it."""

    default_num_cpus = 0.5

    def note(self) -> str:
        import ray

        given = ray.get_runtime_context().get_assigned_resources()
        return ", ".join(f"{name} {amount:g}" for name, amount in sorted(given.items()))


class IgnoresInterrupts(Scoring):
    """Catches all that is raised in it, until `gate` is there; leaves `began` behind."""

    def completed(self):
        while True:
            try:
                Path(self.does["began"]).touch()
                while not Path(self.does["gate"]).exists():
                    time.sleep(0.01)
                return super().completed()
            except BaseException:  # noqa: BLE001, S110 - as users' code has it
                pass


class DiesAfterWriting(Scoring):
    """Its worker dies when the records are durable, and the end of the job is not."""

    def completed(self):
        from batchrunner.jobs.journal import Journal

        Journal.end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return super().completed()


class DiesAfterTheEnd(Scoring):
    """Its worker dies when the end of the job is durable, and no client has heard of it."""

    def completed(self):
        from batchrunner.jobs.journal import Journal

        end = Journal.end

        def end_and_die(*args):
            end(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        Journal.end = end_and_die
        return super().completed()


class SaysSecrets(_SaysSecrets):
    """Prints an environment variable, too."""

    def completed(self):
        print("path", os.environ["PYTHONPATH"])  # noqa: T201 - what it says is kept
        return super().completed()
