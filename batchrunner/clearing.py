"""Starting over: a run's output and memory removed, in an order that a crash cannot turn bad."""

from __future__ import annotations

from batchrunner.plan.output import MANIFEST, SUCCESS
from batchrunner.plan.planning import StoredPlan
from batchrunner.plan.survey import Run

MARK = "clearing.json"
_FOLDERS = (
    "sentinels",
    "ledger",
    "quarantine",
    "attempts",
    "errors",
    "recorded",
    "changes",
    "schema",
    "plan",
)
_RECORDS = ("schema.arrow", "run.json")


def is_clearing(run: Run) -> bool:
    """Tell whether somebody began to start over and died."""
    return run.checkpoint.storage.head(MARK) is not None


def clear(run: Run) -> None:
    """Remove the parts of the run's plan, then everything that its checkpoint knows of them.

    Idempotent. The mark stands from the first removal to the last: whoever comes in between clears
    on. What the plan does not name is not touched; leases and diaries stay.
    """
    storage = run.checkpoint.storage
    storage.put(MARK, b"{}")
    run.sink.delete([SUCCESS, MANIFEST])
    run.sink.delete(_parts(run))
    run.sink.sweep()
    for folder in _FOLDERS:
        storage.delete([entry.key for entry in storage.list(folder)])
    storage.delete(_RECORDS)
    storage.delete([MARK])


def _parts(run: Run) -> list[str]:
    generations = run.checkpoint.generations()
    if not generations:
        return []
    plan = StoredPlan.of(generations)
    names = [plan.facts.part(shard.id) for shard in (*plan.active, *plan.retired)]
    run.sink.forget_notes(names)
    return [*names, *(f"_retired/{plan.facts.part(shard.id)}" for shard in plan.retired)]
