"""The columns that the folders of a file name, added to its rows.

A row that has such a column itself keeps its value, when that says what the folder says: a row that
says another thing stands in the wrong folder or has the wrong value, and nobody can tell which. It is
no row. A value that is missing, or null, is the folder's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.partitions import Partition

if TYPE_CHECKING:
    import pyarrow as pa


def wanted(partition: Partition, columns: tuple[str, ...] | None) -> Partition:
    """Return those of *partition* that are among *columns*, or all."""
    return tuple(item for item in partition if columns is None or item[0] in columns)


def add_to_rows(rows: Sequence[Row], partition: Partition) -> dict[int, str]:
    """Add the columns to *rows*, in place; return the numbers of those that contradict them, and how."""
    faults: dict[int, str] = {}
    for name, value in partition:
        for number, row in enumerate(rows):
            own = row.get(name)
            if own is None:
                row[name] = value
            elif not _says(own, value):
                faults[number] = _contradiction(name, json.dumps(own, default=str), value)
    return faults


def _says(own: Any, value: str | None) -> bool:
    if own == value or value is None:
        return bool(own == value)
    if isinstance(own, bool):
        return json.dumps(own) == value.lower()
    try:
        return isinstance(own, int | float) and type(own)(value) == own
    except ValueError:
        return False


def contradicting_rows(table: pa.Table, partition: Partition) -> dict[int, str]:
    """Return the number of each row of *table* that contradicts *partition*, and how."""
    faults: dict[int, str] = {}
    for name, value in partition:
        if name in table.column_names:
            column = table.column(name)
            for number in _contradicting(column, value):
                faults[number] = _contradiction(name, str(column[number]), value)
    return faults


def _contradicting(column: pa.ChunkedArray, value: str | None) -> Sequence[int]:
    import pyarrow.compute as pc

    if value is None:
        other = column.is_valid()
    elif (typed := _typed(value, column.type)) is None:
        return range(len(column))
    else:
        other = pc.fill_null(pc.not_equal(_decoded(column), _decoded(typed)[0]), fill_value=False)
    found: list[int] = pc.indices_nonzero(other).to_pylist()
    return found


def add_to_table(table: pa.Table, partition: Partition) -> pa.Table:
    """Return *table*, no row of which contradicts *partition*, with its columns: new ones last."""
    import pyarrow as pa

    for name, value in partition:
        text = pa.repeat(pa.scalar(value, pa.string()), table.num_rows)
        if name not in table.column_names:
            table = table.append_column(name, text)
        elif (column := table.column(name)).null_count and value is not None:
            index = table.column_names.index(name)
            if _typed(value, column.type) is not None:
                table = table.set_column(index, name, _cast(text, column.type))
    return table


def _typed(value: str, type_: pa.DataType) -> pa.Array | None:
    import pyarrow as pa

    try:
        return _cast(pa.array([value], pa.string()), type_)
    except pa.ArrowException:
        return None


def _cast(text: pa.Array, type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    return text if pa.types.is_null(type_) else text.cast(type_)


def _decoded(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    type_ = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    return values.cast(pa.string() if pa.types.is_null(type_) else type_)


def _contradiction(name: str, own: str, value: str | None) -> str:
    return (
        f"column {name!r} is {own[:100]}, but the folder of the file says {value!r}; mend one of "
        "them, leave the column out with source.columns, or set source.partitioning: none"
    )
