"""Mode `run`: each row of the source is one run of a capability, on the inputs that the row names.

The runs of a worker's shards on their way into the analytics store, before the shards are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.analytics import CompletedRun, Provenance
from batchrunner.analytics.completed_run import RunLike, rows_of
from batchrunner.analytics.record import run_uri
from batchrunner.analytics.reports import RunReport, report_of
from batchrunner.capability import load_target
from batchrunner.errors import (
    CapabilityImportError,
    InvalidRecordError,
    SchemaConflictError,
    StorageError,
)
from batchrunner.formats.chunk import Row

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun
    from batchrunner.worker.work import Work


def record_runs(work: Work, runs: Mapping[int, Sequence[CompletedRun]]) -> dict[int, str]:
    """Record the *runs* of shards, by their ids: durably, each once, in few writes.

    Returns:
        Why the runs of a shard cannot be recorded as they are, by its id.

    Raises:
        StorageError: The store cannot be written; nothing is lost by trying again.
    """
    waiting = {shard: some for shard, some in runs.items() if some}
    if not waiting or work.spec.analytics_store is None:
        return {}
    try:
        _write(work, [run for some in waiting.values() for run in some])
    except (InvalidRecordError, SchemaConflictError) as error:
        return (
            {next(iter(waiting)): str(error)} if len(waiting) == 1 else _one_by_one(work, waiting)
        )
    return {}


def _one_by_one(work: Work, waiting: Mapping[int, Sequence[CompletedRun]]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for shard, some in waiting.items():
        reasons.update(record_runs(work, {shard: some}))
    return reasons


def _write(work: Work, runs: Iterable[CompletedRun]) -> None:
    from batchrunner.analytics import AnalyticsStore

    config = work.spec.analytics_store
    if config is None:
        raise StorageError("there is no analytics store")
    AnalyticsStore(config).write(runs, provenance={"batch_uid": work.run_uid})


INPUTS = ("models", "datasets", "metrics")
_KEPT = 32
"""Loaded inputs of each kind that a worker keeps, the latest used."""


class CapabilityRuns:
    """Runs one capability, row by row, and keeps what it loaded for later rows."""

    def __init__(self, capability: Any, *, inputs: Mapping[Any, str], store: str) -> None:
        """Prepare to run *capability*, with loaders as in `capability.inputs`.

        Raises:
            CapabilityImportError: It is no capability for runs, or a loader cannot be imported.
        """
        if not callable(getattr(capability, "run", None)) or not hasattr(capability, "id"):
            raise CapabilityImportError(
                f"{type(capability).__name__} has no id and run(): capability.mode run needs an "
                "object with both"
            )
        self._capability, self._store = capability, store
        self._loaders = {kind: _cached(load_target(name)) for kind, name in inputs.items()}

    def __call__(self, row: Row, **kwargs: Any) -> tuple[Row, CompletedRun]:
        """Return what to write for *row*, and the run for the analytics store.

        Raises:
            TypeError: What the capability returned is no run.
            InvalidRecordError: A record of the run does not fit it.
        """
        chosen = {kind: self._load_all(kind, row.get(kind)) for kind in INPUTS}
        config = self._load("config", row.get("config"))
        run = self._capability.run(**chosen, config=config, use_cache=False, **kwargs)
        done = _completed(run)
        now = datetime.now(UTC)  # what does not fit is told now:
        rows_of(done, store_uri=self._store, provenance=Provenance(), now=now)
        uri = run_uri(self._store, done.run_uid)
        out = {"run_uid": done.run_uid, "capability_id": done.capability_id, "store_uri": uri}
        return out, done

    def _load_all(self, kind: str, named: Any) -> list[Any] | None:
        if named is None:
            return None
        return [self._load(kind, one) for one in (named if isinstance(named, list) else [named])]

    def _load(self, kind: str, named: Any) -> Any:
        loader = self._loaders.get(kind)
        return named if loader is None or named is None else loader(named)


def _cached(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @lru_cache(_KEPT)
    def by_text(text: bytes) -> Any:
        return load(orjson.loads(text))

    return lambda named: by_text(orjson.dumps(named))


def _completed(run: RunLike) -> CompletedRun:
    """Return the part of *run* that is recorded; its outputs may be large and are let go."""
    missing = [n for n in ("run_uid", "capability_id", "extract") if not hasattr(run, n)]
    if missing:
        raise TypeError(
            f"the capability returned {type(run).__name__}, which has no {', '.join(missing)}: "
            "that is no run"
        )
    entities = {
        f"{kind}_metadata": _as_tuple(getattr(run, f"{kind}_metadata", None))
        for kind in ("dataset", "model", "metric")
    }
    report = report_of(run) or RunReport()
    return CompletedRun(
        run.run_uid,
        str(run.capability_id),
        tuple(run.extract()),
        outputs_uri=getattr(run, "outputs_uri", None) or report.uri,
        report=report.text,
        **entities,
    )


def _as_tuple(metadata: Any) -> tuple[Any, ...]:
    if metadata is None:
        return ()
    return (metadata,) if isinstance(metadata, Mapping) else tuple(metadata)
