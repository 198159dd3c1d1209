"""Records a complete run in the analytics store: one record of the run, and one of each shard and stage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson

from batchrunner.analytics import (
    AnalyticsStore,
    BatchRunRecord,
    BatchShardRecord,
    BatchStageRecord,
    CapabilityRunRef,
    CompletedRun,
)
from batchrunner.analytics.record import run_uri
from batchrunner.checkpoint import RunRecord, Sentinel
from batchrunner.checkpoint.totals import Totals, Usage, usage_of
from batchrunner.driver.run import Run
from batchrunner.driver.survey import Survey
from batchrunner.spec import BatchSpec
from batchrunner.worker.stage_clock import StageClock


def completed_uid(run_uid: str, committed: Iterable[Sentinel]) -> str:
    """Return the uid of a run in exactly this state; any session and process computes the same."""
    # A retry commits other parts: its uid differs, so the record of the run before it stays.
    parts = sorted((sentinel.part, sentinel.write_id) for sentinel in committed)
    return f"{run_uid}-{hashlib.sha256(orjson.dumps(parts)).hexdigest()[:16]}"


def ref_of(spec: BatchSpec, uid: str) -> CapabilityRunRef | None:
    """Return a reference to the batch recorded as *uid*; None without an analytics store."""
    if spec.analytics_store is None:
        return None
    store_uri = run_uri(spec.analytics_store.uri, uid)
    return CapabilityRunRef(uid, capability_id(spec), store_uri, outputs_uri=spec.sink.uri)


def capability_id(spec: BatchSpec) -> str:
    """Return the capability id under which a run is recorded; the same for a batch as a job."""
    return f"batch/{spec.name}"


def is_recorded(run: Run, survey: Survey) -> bool:
    """Return whether nothing is left to record: no store, not complete, or recorded already."""
    if run.spec.analytics_store is None or survey.record is None or not survey.is_finished:
        return True
    uid = completed_uid(survey.record.run_uid, survey.output.committed.values())
    return run.checkpoint.is_recorded(uid)


def record_batch(
    run: Run,
    survey: Survey,
    committed: Mapping[int, Sentinel],
    *,
    stages: Callable[[], Iterable[StageClock]],
) -> None:
    """Record a complete run, durably and once. Does nothing without an analytics store.

    *stages* returns what the workers of all sessions spent their time on.

    Raises:
        StorageError: The run could not be recorded; running it again only records it.
    """
    store, record = run.spec.analytics_store, run.checkpoint.run()
    if store is None or record is None:
        return
    uid = completed_uid(record.run_uid, committed.values())
    if run.checkpoint.is_recorded(uid):
        return
    totals = Totals.of(survey.plan.active, committed)
    usage = usage_of(survey.plan.active, committed)
    batch = _batch_record(run, record, committed, {**asdict(totals), **_fields(usage)}, uid=uid)
    completed = CompletedRun(
        uid,
        capability_id(run.spec),
        records=[
            batch,
            *_shard_records(uid, survey, committed),
            *(_stage_record(uid, clock) for clock in stages()),
        ],
        dataset_metadata=[{"id": uri} for uri in run.spec.source.uris],
        outputs_uri=run.sink.uri,
    )
    provenance = {"batch_uid": record.run_uid, "submitted_at": batch.started_at}
    AnalyticsStore(store).write([completed], provenance=provenance)
    # After the write: a crash in between writes the same record again, which the store ignores.
    run.checkpoint.mark_recorded(uid)


def _batch_record(
    run: Run,
    record: RunRecord,
    committed: Mapping[int, Sentinel],
    sums: Mapping[str, Any],
    *,
    uid: str,
) -> BatchRunRecord:
    return BatchRunRecord(
        run_uid=uid,
        batch_uid=record.run_uid,
        name=run.spec.name,
        capability=run.spec.capability.code if run.spec.capability else None,
        source_uri=", ".join(run.spec.source.uris),
        sink_uri=run.sink.uri,
        checkpoint_uri=run.checkpoint.storage.uri,
        fingerprint=record.fingerprint,
        started_at=datetime.fromisoformat(record.created_at),
        shards=len(committed),
        sessions=len({sentinel.session for sentinel in committed.values()}),
        seconds=sum(sentinel.seconds for sentinel in committed.values()),
        tags=orjson.dumps(run.spec.tags).decode(),
        **sums,
    )


def _fields(usage: Usage) -> dict[str, Any]:
    if not usage:
        return {}
    rest = {name: amount for name, amount in usage.items() if name != "cost"}
    cost = usage.get("cost")
    return {"cost": None if cost is None else float(cost), "usage": orjson.dumps(rest).decode()}


def _shard_records(
    uid: str, survey: Survey, committed: Mapping[int, Sentinel]
) -> Iterator[BatchShardRecord]:
    for shard in survey.plan.active:
        sentinel = committed[shard.id]
        slicing, start, stop = shard.extent
        yield BatchShardRecord(
            run_uid=uid,
            shard=shard.id,
            source_uri=shard.first.uri,
            slicing=slicing,
            start=start,
            stop=stop,
            part=sentinel.part,
            rows_in=sentinel.rows_in,
            rows_out=sentinel.rows_out,
            rows_failed=sentinel.rows_failed,
            bytes_out=sentinel.bytes,
            sha256=sentinel.sha256,
            session=sentinel.session,
            seconds=sentinel.seconds,
            **_fields(sentinel.usage),
        )


def _stage_record(uid: str, clock: StageClock) -> BatchStageRecord:
    values = clock.to_dict()
    del values["workers"]  # as many as there are at the end
    return BatchStageRecord(run_uid=uid, stage=values.pop("name"), **values)
