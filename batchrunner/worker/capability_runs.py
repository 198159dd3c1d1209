"""Mode `run`: runs the capability once for each row, on the inputs that the row names.

The runs are recorded in the analytics store before their shards are committed: a committed shard is
never mapped again, so a run that was not recorded by then would stay missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.analytics import CompletedRun, Provenance
from batchrunner.analytics.completed_run import RUN_WANTED, RunLike, rows_of
from batchrunner.analytics.record import run_uri
from batchrunner.analytics.reports import CapabilityReport, report_of
from batchrunner.capability import load_target
from batchrunner.errors import (
    CapabilityImportError,
    InvalidRecordError,
    SchemaConflictError,
)
from batchrunner.formats.chunk import Row

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun
    from batchrunner.worker.work import Work


def record_runs(work: Work, runs: Mapping[int, Sequence[CompletedRun]]) -> dict[int, str]:
    """Record *runs*, given by shard id, in the analytics store. Durable, idempotent, in few writes.

    Returns:
        By shard id, why the store refuses the runs of that shard; empty if it refuses none.

    Raises:
        StorageError: The store cannot be written; another attempt records the same runs.
    """
    from batchrunner.analytics import AnalyticsStore

    config = work.spec.analytics_store
    if config is None or not any(runs.values()):
        return {}
    try:
        every = [run for of_shard in runs.values() for run in of_shard]
        AnalyticsStore(config).write(every, provenance={"batch_uid": work.run_uid})
    except (InvalidRecordError, SchemaConflictError) as error:
        if len(runs) == 1:
            return {shard: str(error) for shard in runs}
        # One write for each shard, so that refused runs fail only their own shard.
        refused: dict[int, str] = {}
        for shard, of_shard in runs.items():
            refused |= record_runs(work, {shard: of_shard})
        return refused
    return {}


INPUTS = ("models", "datasets", "metrics")
_CACHED = 32
"""How many loaded inputs of each kind a worker caches; drops the least recently used."""


class CapabilityRuns:
    """Runs one capability for each row; caches loaded inputs for later rows."""

    def __init__(self, capability: Any, *, inputs: Mapping[Any, str], store: str) -> None:
        """Prepare to run *capability*.

        Args:
            capability: An object with `id` and `run`.
            inputs: By kind of input, the target of its loader, as in `capability.inputs` of the
                spec.
            store: URI of the analytics store.

        Raises:
            CapabilityImportError: *capability* has no `id` or `run`, or a loader cannot be
                imported.
        """
        if not callable(getattr(capability, "run", None)) or not hasattr(capability, "id"):
            raise CapabilityImportError(
                f"{type(capability).__name__} has no id and run(): capability.mode run needs an "
                "object with both"
            )
        self._capability, self._store = capability, store
        self._loaders = {kind: _cached(load_target(name)) for kind, name in inputs.items()}

    def __call__(self, row: Row, **kwargs: Any) -> tuple[Row, CompletedRun]:
        """Run the capability on the inputs that *row* names; return the output row and the run.

        Raises:
            TypeError: The capability returned an object that is no run.
            InvalidRecordError: A record of the run does not match the fields of its class.
        """
        loaded = {kind: self._load_all(kind, row.get(kind)) for kind in INPUTS}
        config = self._load("config", row.get("config"))
        run = self._capability.run(**loaded, config=config, use_cache=False, **kwargs)
        completed = _completed(run)
        # Only to validate: an invalid record fails its row here; in `record_runs`, the whole shard.
        now = datetime.now(UTC)
        rows_of(completed, store_uri=self._store, provenance=Provenance(), now=now)
        uri = run_uri(self._store, completed.run_uid)
        ids = {"run_uid": completed.run_uid, "capability_id": completed.capability_id}
        return {**ids, "store_uri": uri}, completed

    def _load_all(self, kind: str, named: Any) -> list[Any] | None:
        if named is None:
            return None
        return [self._load(kind, one) for one in (named if isinstance(named, list) else [named])]

    def _load(self, kind: str, named: Any) -> Any:
        loader = self._loaders.get(kind)
        return named if loader is None or named is None else loader(named)


def _cached(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @lru_cache(_CACHED)
    def by_text(text: bytes) -> Any:
        return load(orjson.loads(text))

    return lambda named: by_text(orjson.dumps(named))


def _completed(run: RunLike) -> CompletedRun:
    """Return what to record of *run*: all but its outputs, which may be large."""
    missing = [n for n in ("run_uid", "capability_id", "extract") if not hasattr(run, n)]
    if missing:
        raise TypeError(
            f"the capability returned {type(run).__name__}, which has no {', '.join(missing)}; {RUN_WANTED}"
        )
    entities = {
        f"{kind}_metadata": _as_tuple(getattr(run, f"{kind}_metadata", None))
        for kind in ("dataset", "model", "metric")
    }
    report = report_of(run) or CapabilityReport()
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
