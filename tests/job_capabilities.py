"""Capabilities of the job tests, as users write them: no base class, any signature that fits."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from typing import Any

from pydantic import BaseModel

from batchrunner.analytics import CompletedRun, Record


class Score(Record, table_name="score"):
    value: float
    note: str = ""


class Scoring:
    """A capability that does what a test is about: waits, fails, dies, counts.

    Args:
        tag: Makes it another run.
        calls: Folder that gets a file per execution.
        until: The run takes until this file is there.
        beats: File that grows as long as the run goes on.
        fails: Message of the exception that it raises.
        dies: How often it kills its worker, counted in *calls*.
        records: How many it makes.
    """

    def __init__(self, tag: str, **does: Any) -> None:
        self.id = f"scoring.{tag}"
        self.does = does

    def run(self, models=None, datasets=None, metrics=None, config=None, use_cache=True):
        assert use_cache is False
        does = self.does
        number = self.count() if does.get("calls") else 0
        print(f"scoring {self.id}")  # noqa: T201 - what it says is kept
        while does.get("until") and not os.path.exists(does["until"]):
            if does.get("beats"):
                with open(does["beats"], "a") as file:
                    file.write(".")
            time.sleep(0.01)
        if number and number <= does.get("dies", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if does.get("fails"):
            raise ValueError(does["fails"])
        return self.completed()

    def completed(self):
        records = [
            Score(run_uid=self.run_uid, value=float(n), note=self.note())
            for n in range(self.does.get("records", 1))
        ]
        return CompletedRun(self.run_uid, self.id, records, dataset_metadata=[{"id": "d1"}])

    @property
    def run_uid(self) -> str:
        return f"run-{self.id}"

    def note(self) -> str:
        return ""

    def count(self) -> int:
        """Leave a file behind for this execution; return its number."""
        folder = self.does["calls"]
        os.makedirs(folder, exist_ok=True)
        number = 1
        while True:
            with contextlib.suppress(FileExistsError), open(f"{folder}/{number}", "x") as file:
                file.write(str(os.getpid()))
                return number
            number += 1


class TellsResources(Scoring):
    """Records what Ray gave it."""

    default_num_cpus = 0.5

    def note(self) -> str:
        import ray

        given = ray.get_runtime_context().get_assigned_resources()
        return ", ".join(f"{name} {amount:g}" for name, amount in sorted(given.items()))


class DiesBeforeWriting(Scoring):
    """Its worker dies when the run is done and nothing of it is written."""

    def completed(self):
        class Run(CompletedRun):
            def extract(self):
                os.kill(os.getpid(), signal.SIGKILL)

        return Run(self.run_uid, self.id)


class DiesAfterWriting(Scoring):
    """Its worker dies when the records are durable, and the end of the job is not."""

    def completed(self):
        from batchrunner.jobs.journal import Journal

        Journal.end = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return super().completed()


class DiesAfterTheEnd(Scoring):
    """Its worker dies when the end of the job is durable, and before any caller has its answer."""

    def completed(self):
        from batchrunner.jobs.journal import Journal

        end = Journal.end

        def end_and_die(*args):
            end(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        Journal.end = end_and_die
        return super().completed()


class OddError(Exception):
    """Cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class RaisesOddly(Scoring):
    def completed(self):
        raise OddError("\x1b[31modd\x1b[0m, and coloured")


class Raises(Scoring):
    """Raises what ends a process, a thread or an event loop."""

    def __init__(self, tag: str, raises: type[BaseException]) -> None:
        super().__init__(tag)
        self.raises = raises

    def completed(self):
        raise self.raises("of the user's own")


class Returns(Scoring):
    """Returns what is no run."""

    def __init__(self, tag: str, returned: Any) -> None:
        super().__init__(tag)
        self.returned = returned

    def completed(self):
        return self.returned


class Reports(Scoring):
    """Its run makes a report of itself, as those of evaluation packages do."""

    def completed(self):
        run = super().completed()

        class Run:
            run_uid, capability_id = run.run_uid, run.capability_id
            extract = run.extract

            def collect_md_report(self, threshold: float) -> str:
                return f"# Good from {threshold} on\n"

        return Run()


class SaysSecrets(Scoring):
    """Prints, logs and raises a secret of the store's, and prints an environment variable."""

    def __init__(self, tag: str, *, secret: str, raises: bool) -> None:
        super().__init__(tag)
        self.secret, self.raises = secret, raises

    def completed(self):
        print("path", os.environ["PYTHONPATH"])  # noqa: T201 - what it says is kept
        print("token", self.secret)  # noqa: T201 - likewise
        logging.getLogger("user").warning("token %s", self.secret)
        if self.raises:
            raise ValueError(f"bad token {self.secret}")
        return super().completed()


class HoldsALock(Scoring):
    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.lock = threading.Lock()


class Config(BaseModel):
    """A config as evaluation packages have it: resources among the rest."""

    threshold: float = 0.5
    num_cpus: float | None = None


class Dataset:
    def __init__(self, name: str) -> None:
        self.metadata = {"id": name, "index2label": {0: "cat"}}


class Evaluation:
    """The shape of a capability of the evaluation packages around: an id, a default config."""

    def __init__(self) -> None:
        self.id = "evaluations.Evaluation"

    @classmethod
    def _create_config(cls):
        return Config()

    def run(self, models=None, datasets=None, metrics=None, config=None, use_cache=True):
        config = config or self._create_config()
        uid = f"{self.id}-{'-'.join(d.metadata['id'] for d in datasets)}-{config.threshold}"
        return CompletedRun(
            uid,
            self.id,
            [Score(run_uid=uid, value=config.threshold)],
            dataset_metadata=[d.metadata for d in datasets],
        )
