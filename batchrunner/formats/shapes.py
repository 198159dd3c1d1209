"""Turns rows with keys of their own into tables, cut where one table cannot hold them exactly.

A table has one type for each column, and null where a row lacks a key. So rows go into one table as
long as each column has one kind of value, and as long as null in it means one thing: that the key is
absent, or that it is there and null. If not, the rows are halved. The cuts depend on the file alone,
not on the size of batches, or on which rows are retried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.chunk import Absent, Row, Segment, Shape
from batchrunner.formats.columns import rows_to_table
from batchrunner.formats.list_types import is_list, joined_lists
from batchrunner.formats.schema_error import SchemaError


@dataclass(frozen=True, slots=True)
class RowTable:
    """A segment and its rows as a table, or the reason why no table can hold them."""

    segment: Segment
    table: pa.Table | None
    refusal: str = ""

    def rows(self, start: int, stop: int) -> pa.Table:
        """Return rows *start* to *stop* of the chunk, which lie in the segment.

        Raises:
            SchemaError: No table can hold them.
        """
        if self.table is None:
            raise SchemaError(f"{self.refusal}; or use execution.batch_format: rows")
        return self.table.slice(start - self.segment.start, stop - start)


def tables_of(
    rows: Sequence[Row], *, start: int = 0, hints: Sequence[pa.Schema] = ()
) -> Iterator[RowTable]:
    """Yield *rows* as tables, in order, halved until a table holds them; *start* is their index.

    A column gets the first type that *hints* have for it and that fits its values.
    """
    if not rows:
        return
    try:
        absent = _absences(rows)
        table = rows_to_table(rows, hints=hints)
    except SchemaError as error:
        if len(rows) == 1:
            yield RowTable(Segment(start, start + 1, None), None, str(error))
            return
        middle = len(rows) // 2
        yield from tables_of(rows[:middle], start=start, hints=hints)
        yield from tables_of(rows[middle:], start=start + middle, hints=hints)
    else:
        yield RowTable(
            Segment(start, start + len(rows), Shape(table.schema, absent, is_inferred=True)), table
        )


def _absences(objects: Sequence[Row]) -> Absent:
    """Return which nulls in the table of *objects* mean that the key is absent.

    Raises:
        SchemaError: A key is absent in some objects and null in others.
    """
    keys = objects[0].keys()
    uniform = all(one.keys() == keys for one in objects)
    absent: dict[str, tuple[bool, Absent]] = {}
    for key in keys if uniform else dict.fromkeys(key for one in objects for key in one):
        is_absent = not uniform and any(key not in one for one in objects)
        if is_absent and any(one.get(key, 0) is None for one in objects):
            raise SchemaError(
                f"column {key!r}: the key is null in some rows and absent in others: have it in all or none"
            )
        inner = list(_objects_in(one.get(key) for one in objects))
        below = _absences(inner) if inner else {}
        if is_absent or below:
            absent[key] = is_absent, below
    return absent


def _objects_in(values: Iterable[Any]) -> Iterator[Row]:
    for value in values:
        if type(value) is dict:
            yield value
        elif type(value) is list and value and type(value[0]) in (dict, list, type(None)):
            yield from _objects_in(value)


def without_absent(rows: Sequence[Row], absent: Absent) -> Sequence[Row]:
    """Remove the keys that *absent* says null stands for from *rows* of a table; return *rows*."""
    if absent:
        for row in rows:
            _drop_absent(row, absent)
    return rows


def _drop_absent(row: Row, absent: Absent) -> None:
    for key, (is_absent, below) in absent.items():
        if key not in row:
            continue
        if row[key] is None:
            if is_absent:
                del row[key]
        elif below:
            for inner in _objects_in([row[key]]):
                _drop_absent(inner, below)


def without_guesses(table: pa.Table, inferred: pa.Schema) -> pa.Table:
    """Return *table* with the type null where all its values are null, at any depth.

    Their type in *inferred* comes from other rows, which may fail, or be in another batch.
    """
    for index, field in enumerate(table.schema):
        if field.name in inferred.names and inferred.field(field.name).type.equals(field.type):
            column = table.column(index)
            bare = _without_guesses(
                column.combine_chunks() if pa.types.is_nested(field.type) else column
            )
            if not bare.type.equals(field.type):
                table = table.set_column(index, field.name, bare)
    return table


def _without_guesses(array: Any) -> Any:
    kind = array.type
    if array.null_count == len(array):
        return pa.nulls(len(array))
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            return array
        children = [_without_guesses(child) for child in array.flatten()]
        names = [field.name for field in kind]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null())
    if is_list(kind):
        child = _without_guesses(array.flatten())
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        return joined_lists(lengths, child, array.is_null(), kind)
    return array
