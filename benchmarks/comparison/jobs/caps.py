"""For batchrunner: rows in, rows out."""

from __future__ import annotations

from typing import Any

from work import length


def add_length(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "n": length(row["id"], row["text"])} for row in rows]
