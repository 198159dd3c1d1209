"""The end of a run: its output declared complete."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from batchrunner.checkpoint import Sentinel
from batchrunner.plan.output import MANIFEST, SUCCESS
from batchrunner.plan.survey import Run, Survey
from batchrunner.plan.totals import Totals
from batchrunner.storage import Storage

RETIRED = "_retired"
MANIFEST_VERSION = 1


def declare_success(run: Run, survey: Survey, committed: Mapping[int, Sentinel]) -> None:
    """Say that the output is complete. Idempotent; `_SUCCESS` comes last.

    Retired parts go out of the way only now, when their successors are all committed.
    """
    for part in survey.output.retired:
        run.sink.move(part, f"{RETIRED}/{part}")
    run.sink.put(MANIFEST, manifest(survey, committed))
    # Attempts that died left these; with every shard sealed, nobody needs them any more.
    run.sink.forget_notes([sentinel.part for sentinel in committed.values()])
    run.sink.sweep()
    _forget_attempts(run.checkpoint.storage, committed)
    run.sink.put(SUCCESS, b"")


def _forget_attempts(storage: Storage, committed: Mapping[int, Sentinel]) -> None:
    """Remove what attempts left that died or lost: their marks, and rows that they had set aside."""
    counting = {sentinel.errors for sentinel in committed.values()}
    letters = [e.key for e in storage.list("errors") if e.key.partition("/")[2] not in counting]
    storage.delete([*letters, *(entry.key for entry in storage.list("attempts"))])


def manifest(survey: Survey, committed: Mapping[int, Sentinel]) -> bytes:
    """Return the list of all parts, in shard order, with the totals."""
    sentinels = [committed[shard.id] for shard in survey.plan.active]
    parts = [
        {
            "part": sentinel.part,
            "rows": sentinel.rows_out,
            "bytes": sentinel.bytes,
            "sha256": sentinel.sha256,
            "source": shard.uri,
            "slicing": shard.slicing,
            "start": shard.start,
            "stop": shard.stop,
        }
        for shard, sentinel in zip(survey.plan.active, sentinels, strict=True)
    ]
    found = Totals.of(survey.plan.active, committed)
    totals = {
        "rows_in": found.rows_in,
        "rows_out": found.rows_out,
        "rows_failed": found.rows_failed,
        "bytes": found.bytes_out,
    }
    run_uid = sentinels[0].run_uid if sentinels else ""
    content = {"version": MANIFEST_VERSION, "run_uid": run_uid, **totals, "parts": parts}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)
