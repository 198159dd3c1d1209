"""An evaluation: how well a compressor (the model) packs the source of a module (the dataset)."""

from __future__ import annotations

import bz2
import hashlib
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from batchrunner.analytics import Record

Compressor = Callable[[bytes, int], bytes]

COMPRESSORS: dict[str, Compressor] = {
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "lzma": lambda data, level: lzma.compress(data, preset=level),
}


@dataclass(frozen=True)
class Dataset:
    """The source of a module of Python's standard library."""

    id: str
    data: bytes


@dataclass(frozen=True)
class Model:
    """A compressor."""

    id: str
    compress: Compressor


def load_dataset(name: str) -> Dataset:
    """Load the dataset that a row names; a worker loads each once."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"there is no module {name}")
    return Dataset(name, Path(found.origin).read_bytes())


def load_model(name: str) -> Model:
    """Load the model that a row names."""
    return Model(name, COMPRESSORS[name])


class Score(Record, table_name="compression"):
    """A row of the table `compression` of the store."""

    dataset: str
    model: str
    level: int
    ratio: float


@dataclass(frozen=True)
class Run:
    """What one evaluation found; the store records it under `run_uid`."""

    run_uid: str
    score: Score
    dataset_metadata: list[dict[str, str]]
    model_metadata: list[dict[str, str]]
    capability_id: str = "compression"

    def extract(self) -> list[Record]:
        """Return the records of this run."""
        return [self.score]


class Compression:
    """The evaluation. Built once per worker."""

    id: ClassVar[str] = "compression"

    def run(
        self, *, models: list[Model], datasets: list[Dataset], config: dict[str, int], **_: Any
    ) -> Run:
        """Evaluate one model on one dataset."""
        model, dataset, level = models[0], datasets[0], config["level"]
        packed = model.compress(dataset.data, level)
        # Made from what is run, so that the same run, computed again after a crash, is recorded once.
        uid = hashlib.sha256(f"{dataset.id} {model.id} {level}".encode()).hexdigest()[:16]
        ratio = round(len(dataset.data) / len(packed), 3)
        score = Score(run_uid=uid, dataset=dataset.id, model=model.id, level=level, ratio=ratio)
        return Run(uid, score, [{"id": dataset.id}], [{"id": model.id}])
