"""The analytics store: the durable record of completed runs, in tables that SQL can query."""

from __future__ import annotations

from batchrunner.analytics.batch_records import BatchRunRecord as BatchRunRecord
from batchrunner.analytics.batch_records import BatchShardRecord as BatchShardRecord
from batchrunner.analytics.batch_records import BatchStageRecord as BatchStageRecord
from batchrunner.analytics.compaction import CompactionReport as CompactionReport
from batchrunner.analytics.completed_run import CompletedRun as CompletedRun
from batchrunner.analytics.completed_run import Provenance as Provenance
from batchrunner.analytics.record import CapabilityRunRef as CapabilityRunRef
from batchrunner.analytics.record import Record as Record
from batchrunner.analytics.run_lookup import RecordedRun as RecordedRun
from batchrunner.analytics.run_summaries import RunSummary as RunSummary
from batchrunner.analytics.store import AnalyticsStore as AnalyticsStore
from batchrunner.analytics.store import open_store as open_store
from batchrunner.analytics.writing import WriteReceipt as WriteReceipt
from batchrunner.spec import AnalyticsStoreConfig as AnalyticsStoreConfig

__all__ = [
    "AnalyticsStore",
    "AnalyticsStoreConfig",
    "BatchRunRecord",
    "BatchShardRecord",
    "BatchStageRecord",
    "CapabilityRunRef",
    "CompactionReport",
    "CompletedRun",
    "Provenance",
    "Record",
    "RecordedRun",
    "RunSummary",
    "WriteReceipt",
    "open_store",
]
