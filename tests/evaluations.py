"""Capabilities whose runs are recorded: the shape of the public package checkmaite, without it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

from batchrunner.analytics import Record


class Score(Record, table_name="score"):
    value: float
    note: str | None = None


@dataclass
class Run:
    """What a capability returns: no class of ours."""

    capability_id: str
    datasets: list
    models: list
    config: object = None
    dataset_metadata: list = field(init=False)
    model_metadata: list = field(init=False)
    metric_metadata: tuple = ()

    def __post_init__(self):
        self.dataset_metadata = [{"id": one["id"]} for one in self.datasets]
        self.model_metadata = [{"id": one["id"]} for one in self.models]

    @property
    def run_uid(self):
        named = (self.capability_id, self.dataset_metadata, self.model_metadata, self.config)
        return hashlib.sha256(repr(named).encode()).hexdigest()[:32]

    def extract(self):
        return [Score(run_uid=self.run_uid, value=len(self.datasets[0]["id"]))]

    def collect_md_report(self, threshold):
        return f"# {self.capability_id} at {threshold}"


class Accuracy:
    """Built once per worker."""

    id = "accuracy"

    def __init__(self, scale=1):
        self.scale = scale

    def run(self, *, models=None, datasets=None, metrics=None, config=None, use_cache=False):
        assert use_cache is False
        if datasets[0]["id"] == "broken":
            raise FileNotFoundError("no such dataset")
        if datasets[0]["id"] == "deadly":
            os._exit(5)
        return Run(self.id, datasets, models or [], config)


class ForeignRecords(Accuracy):
    """Its records name another run."""

    def run(self, **inputs):
        run = super().run(**inputs)
        run.extract = lambda: [Score(run_uid="another", value=1.0)]
        return run


def load_dataset(name):
    """Say in a file, if there is one to say it in, what was loaded."""
    if path := os.environ.get("LOADED"):
        with open(path, "a") as file:
            file.write(f"{name}\n")
    return {"id": name}


def load_model(name):
    return {"id": f"model-{name}"}


accuracy = Accuracy()
