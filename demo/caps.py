"""The capability of `specs/quickstart.yaml` and `specs/full.yaml`."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def upper(rows: list[Row]) -> list[Row]:
    """Shout."""
    return [{**row, "text": row["text"].upper()} for row in rows]
