"""Capabilities for the job contract, as users write them: without a base class.

They have a module of their own, as workers import it and have no pytest.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

from pydantic import BaseModel

from batchrunner.analytics import CompletedRun, Record


class JobScore(Record, table_name="score"):
    value: float
    note: str = ""


class Scoring:
    """Waits, fails, kills its worker or counts its executions, as a test needs it.

    Args:
        tag: Part of the id: another tag makes another run.
        does: What it does. `calls`: folder that gets a file for each execution; `until`: file that
            the run waits for; `beats`: file that grows while the run waits; `fails`: message of the
            exception that it raises; `dies`: in how many executions it kills its worker (needs
            `calls`); `records`: number of records that it makes.
    """

    def __init__(self, tag: str, **does: Any) -> None:
        self.id = f"scoring.{tag}"
        self.does = does

    def run(
        self,
        models: Any = None,  # noqa: ARG002 - the capabilities' signature
        datasets: Any = None,  # noqa: ARG002
        metrics: Any = None,  # noqa: ARG002
        config: Any = None,  # noqa: ARG002
        use_cache: bool = True,
    ) -> Any:
        assert use_cache is False  # noqa: S101 - what the contract promises
        does = self.does
        number = self.count() if does.get("calls") else 0
        print(f"scoring {self.id}")  # noqa: T201 - what the test reads in the log
        while does.get("until") and not Path(does["until"]).exists():
            if does.get("beats"):
                with Path(does["beats"]).open("a") as file:
                    file.write(".")
            time.sleep(0.01)
        if number and number <= does.get("dies", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if does.get("fails"):
            raise ValueError(does["fails"])
        return self.completed()

    def completed(self) -> Any:
        """Return the completed run."""
        records = [
            JobScore(run_uid=self.run_uid, value=float(n), note=self.note())
            for n in range(self.does.get("records", 1))
        ]
        return CompletedRun(self.run_uid, self.id, records, dataset_metadata=[{"id": "d1"}])

    @property
    def run_uid(self) -> str:
        """Name of the run."""
        return f"run-{self.id}"

    def note(self) -> str:
        """Return the text for the `note` of each record."""
        return ""

    def count(self) -> int:
        """Create a file for this execution in the folder `calls`; return its number."""
        folder = Path(self.does["calls"])
        folder.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            with contextlib.suppress(FileExistsError), (folder / str(number)).open("x") as file:
                file.write(str(os.getpid()))
                return number
            number += 1


class DiesBeforeWriting(Scoring):
    """Kills its worker when the run is done and before anything is written."""

    def completed(self) -> Any:
        class DeadlyRun(CompletedRun):
            def extract(self) -> Sequence[Record]:
                os.kill(os.getpid(), signal.SIGKILL)
                return ()

        return DeadlyRun(self.run_uid, self.id)


class OddError(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class RaisesOddly(Scoring):
    """Raises an exception that cannot be pickled and whose message has colours."""

    def completed(self) -> Never:
        raise OddError("\x1b[31modd\x1b[0m, and coloured")


class Raises(Scoring):
    """Raises a given exception, such as one that ends a process, a thread or an event loop."""

    def __init__(self, tag: str, raises: type[BaseException]) -> None:
        super().__init__(tag)
        self.raises = raises

    def completed(self) -> Never:
        raise self.raises("of the user's own")


class Returns(Scoring):
    """Returns a given object, which is not a run."""

    def __init__(self, tag: str, returned: Any) -> None:
        super().__init__(tag)
        self.returned = returned

    def completed(self) -> Any:
        return self.returned


class Reports(Scoring):
    """Returns a run with a report, as evaluation packages do."""

    def completed(self) -> Any:
        run = super().completed()

        class ReportedRun:
            run_uid, capability_id = run.run_uid, run.capability_id
            extract = run.extract

            def collect_md_report(self, threshold: float) -> str:
                return f"# Good from {threshold} on\n"

        return ReportedRun()


class SaysSecrets(Scoring):
    """Prints and logs *secret*, which is one of the store's, and raises it if *raises*."""

    def __init__(self, tag: str, *, secret: str, raises: bool) -> None:
        super().__init__(tag)
        self.secret, self.raises = secret, raises

    def completed(self) -> Any:
        print("token", self.secret)  # noqa: T201 - what the test reads in the log
        logging.getLogger("user").warning("token %s", self.secret)
        if self.raises:
            raise ValueError(f"bad token {self.secret}")
        return super().completed()


class HoldsALock(Scoring):
    """A capability that cannot be pickled."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.lock = threading.Lock()


class Config(BaseModel):
    """A config as in evaluation packages: some of its fields are resources."""

    threshold: float = 0.5
    num_cpus: float | None = None


class Dataset:
    """A dataset as in evaluation packages: its metadata has its id."""

    def __init__(self, name: str) -> None:
        self.metadata = {"id": name, "index2label": {0: "cat"}}


class Evaluation:
    """A capability as in evaluation packages: it has an id and a default config."""

    def __init__(self) -> None:
        self.id = "evaluations.Evaluation"

    @classmethod
    def _create_config(cls) -> Config:
        return Config()

    def run(
        self,
        models: Any = None,  # noqa: ARG002 - the capabilities' signature
        datasets: Any = None,
        metrics: Any = None,  # noqa: ARG002
        config: Any = None,
        use_cache: bool = True,  # noqa: ARG002
    ) -> CompletedRun:
        config = config or self._create_config()
        uid = f"{self.id}-{'-'.join(d.metadata['id'] for d in datasets)}-{config.threshold}"
        return CompletedRun(
            uid,
            self.id,
            [JobScore(run_uid=uid, value=config.threshold)],
            dataset_metadata=[d.metadata for d in datasets],
        )
