"""The stored state of a run: what was asked, the plan, committed shards, and its driver's lease."""

from batchrunner.checkpoint.documents import Quarantine, RunRecord, Sentinel
from batchrunner.checkpoint.location import RunLocation
from batchrunner.checkpoint.plan_file import Generation, PlanFacts, RunPlace
from batchrunner.checkpoint.sentinel_index import Sentinels
from batchrunner.checkpoint.store import Checkpoint

__all__ = [
    "Checkpoint",
    "Generation",
    "PlanFacts",
    "Quarantine",
    "RunLocation",
    "RunPlace",
    "RunRecord",
    "Sentinel",
    "Sentinels",
]
