"""The capabilities of `specs/quickstart.yaml`, `specs/full.yaml` and `specs/csv.yaml`."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def upper(rows: list[Row]) -> list[Row]:
    """Shout."""
    return [{**row, "text": row["text"].upper()} for row in rows]


def with_weekday(rows: list[Row]) -> list[Row]:
    """Add the day of the week on which an order of `orders.csv` came."""
    return [{**row, "weekday": row["ordered"].strftime("%A")} for row in rows]
