"""Comparison of two runs: which values of their records differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchrunner.analytics.batch_records import BatchRunRecord, BatchShardRecord
from batchrunner.analytics.record import Row
from batchrunner.analytics.run_lookup import RecordedRun
from batchrunner.errors import InvalidSpecError

_OF_THE_RUN = frozenset({"run_uid", "created_at"})
_OF_A_BATCH = {
    BatchRunRecord.table_name: frozenset({"batch_uid"}),
    BatchShardRecord.table_name: frozenset({"session"}),
}
"""Columns that are new in each batch, and so say nothing about a difference, by table."""
_MATCHED_BY: Mapping[str, Collection[str]] = {
    BatchRunRecord.table_name: (),  # there is one
    BatchShardRecord.table_name: ("part",),
}
"""Columns that match records, of tables whose columns of text (hashes, URIs) differ in each run."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value in which two runs differ.

    Attributes:
        table: Table of the records.
        where: The columns, with their values, by which the records were matched.
        column: The column that differs.
        first, second: Its value in each run; None also if that run has no such record.
        change: Second minus first if both are numbers, else None.
    """

    table: str
    where: str
    column: str
    first: Any
    second: Any
    change: float | None


def compare(
    first: RecordedRun,
    second: RecordedRun,
    *,
    on: Collection[str] = (),
    without: Collection[str] = (),
) -> list[Difference]:
    """Return the differences between the records of two runs, table by table.

    Records are matched by their text columns; the shards of batches by their parts. The names of entities that only one of the two
    runs ran on, such as two different models, are left out: they neither match nor differ.

    Args:
        first: The run to compare with.
        second: The run whose values are compared with it.
        on: Columns to match records by, instead of the text columns.
        without: Tables to leave out.

    Raises:
        InvalidSpecError: No record has one of the columns in *on*.
    """
    _check(on, first, second)
    unshared = _entities(first) ^ _entities(second)
    differences: list[Difference] = []
    for table in sorted({*first.records, *second.records} - {*without}):
        ones, others = (
            _by_key(_rows(run, table), on=on or _MATCHED_BY.get(table), unshared=unshared)
            for run in (first, second)
        )
        for key in dict.fromkeys([*ones, *others]):
            one, other = (_without(rows.get(key, {}), unshared) for rows in (ones, others))
            differences += _differences(table, key, one, other)
    return differences


def _check(on: Collection[str], *runs: RecordedRun) -> None:
    columns = {
        column for run in runs for rows in run.records.values() for row in rows for column in row
    }
    if missing := sorted(set(on) - columns):
        raise InvalidSpecError(
            f"no record of these runs has a column {missing[0]!r}; they have: "
            f"{', '.join(sorted(columns))}"
        )


def _entities(run: RecordedRun) -> set[str]:
    return {row["entity_id"] for row in run.runs if row["entity_id"] is not None}


def _rows(run: RecordedRun, table: str) -> Iterator[Row]:
    left_out = _OF_A_BATCH.get(table, frozenset())
    for row in run.records.get(table, ()):
        yield {name: value for name, value in row.items() if name not in left_out}


def _by_key(
    rows: Iterable[Row], *, on: Collection[str] | None, unshared: Collection[str]
) -> dict[tuple[str, int], Row]:
    """Return *rows* by the text that matches them, and by number among rows with the same text.

    They are matched by their columns *on*; if that is None, by their text columns.
    """
    by_key: dict[tuple[str, int], Row] = {}
    counts: Counter[str] = Counter()
    for row in rows:
        named = (
            _texts(row, unshared) if on is None else {name: row[name] for name in on if name in row}
        )
        text = ", ".join(f"{name}={value}" for name, value in named.items())
        by_key[text, counts[text]] = row
        counts[text] += 1
    return by_key


def _texts(row: Row, unshared: Collection[str]) -> Row:
    columns = _without(row, unshared)
    return {name: value for name, value in columns.items() if isinstance(value, str)}


def _without(row: Row, unshared: Collection[str]) -> Row:
    """Return *row* without its run's uid and time, and without the entity names in *unshared*."""
    return {
        name: value
        for name, value in row.items()
        if name not in _OF_THE_RUN and not (isinstance(value, str) and value in unshared)
    }


def _differences(table: str, key: tuple[str, int], one: Row, other: Row) -> Iterator[Difference]:
    text, number = key
    where = f"{text} #{number + 1}".strip() if number else text
    for column in dict.fromkeys([*one, *other]):
        first, second = one.get(column), other.get(column)
        if first != second and not (first is second is None):
            yield Difference(table, where, column, first, second, _change(first, second))


def _change(first: Any, second: Any) -> float | None:
    numbers = [v for v in (first, second) if isinstance(v, int | float) and type(v) is not bool]
    return numbers[1] - numbers[0] if len(numbers) == 2 else None
