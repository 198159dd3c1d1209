"""Two runs, side by side: which of their numbers differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batchrunner.analytics.finding import RecordedRun, Row

_OF_THE_RUN = frozenset({"run_uid", "created_at"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One value in which two runs differ.

    Attributes:
        table: Of the records.
        where: Which records: their columns of text, which both have in common.
        column: The column that differs.
        first, second: Its values; None also where a run has no such record.
        change: Second less first, of numbers.
    """

    table: str
    where: str
    column: str
    first: Any
    second: Any
    change: float | None


def compare(first: RecordedRun, second: RecordedRun) -> list[Difference]:
    """Return what differs between the records of two runs, table by table."""
    found: list[Difference] = []
    for table in sorted({*first.records, *second.records}):
        ones, others = (_by_text(run.records.get(table, ())) for run in (first, second))
        for key in dict.fromkeys([*ones, *others]):
            found += _differences(table, key, ones.get(key, {}), others.get(key, {}))
    return found


def _by_text(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """Return *rows* by their columns of text; of those that have the same, by their order."""
    found: dict[tuple[str, int], Row] = {}
    for row in rows:
        text = ", ".join(f"{name}={value}" for name, value in row.items() if _is_text(name, value))
        number = sum(1 for known, _ in found if known == text)
        found[text, number] = row
    return found


def _is_text(name: str, value: Any) -> bool:
    return isinstance(value, str) and name not in _OF_THE_RUN


def _differences(table: str, key: tuple[str, int], one: Row, other: Row) -> Iterator[Difference]:
    text, number = key
    where = f"{text} #{number + 1}".strip() if number else text
    for column in dict.fromkeys([*one, *other]):
        first, second = one.get(column), other.get(column)
        if column not in _OF_THE_RUN and first != second and not (first is second is None):
            yield Difference(table, where, column, first, second, _change(first, second))


def _change(first: Any, second: Any) -> float | None:
    numbers = [v for v in (first, second) if isinstance(v, int | float) and type(v) is not bool]
    return numbers[1] - numbers[0] if len(numbers) == 2 else None
