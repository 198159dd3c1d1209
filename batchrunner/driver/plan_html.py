"""A survey as tables, for a notebook: what a run would do, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.driver.notebook_html import facts_html, records_html

if TYPE_CHECKING:
    from batchrunner.driver.survey import Survey

_SHOWN_SHARDS = 20


def plan_html(survey: Survey) -> str:
    """Return the figures of *survey*, then its first pending shards."""
    figures = facts_html(
        "plan",
        {
            "shards": len(survey.plan.active),
            "committed": len(survey.output.committed),
            "pending": len(survey.pending),
            "quarantined": len(survey.quarantined),
            "changes": "\n".join(survey.accepted),
            "notes": "\n".join(survey.notes),
        },
    )
    shown = [
        (shard.id, shard.first.uri, *shard.extent, survey.why(shard))
        for shard in survey.pending[:_SHOWN_SHARDS]
    ]
    left_out = len(survey.pending) - len(shown)
    title = f"pending: the first {len(shown):,}{f', and {left_out:,} more' if left_out else ''}"
    return figures + records_html(title, ("shard", "file", "by", "from", "to", "why"), shown)
