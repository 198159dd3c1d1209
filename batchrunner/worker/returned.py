"""What a capability returns for a batch, made ready for the sink: as lines or as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.json_rows import write_block, write_line

if TYPE_CHECKING:
    import pyarrow as pa


def to_lines(returned: Any) -> tuple[bytes, int]:
    """Return the rows as JSON lines, and how many there are.

    Raises:
        TypeError: *returned* is none of the shapes that a batch can have.
        ValueError: A row cannot be written as JSON exactly, or columns differ in length.
    """
    rows = _rows(returned)
    if not rows:
        return b"", 0
    lines = write_block(rows) if set(map(type, rows)) == {dict} else None
    return (b"".join(map(write_line, rows)) if lines is None else lines), len(rows)


def to_table(returned: Any) -> tuple[pa.Table, int]:
    """Return the rows as a table, and how many there are.

    Raises:
        TypeError: *returned* is none of the shapes that a batch can have.
        ValueError: The values of a column have no type in common, or columns differ in length.
    """
    table = _table(returned)
    return table, table.num_rows


def _rows(returned: Any) -> Sequence[Row]:
    if isinstance(returned, list):
        return returned
    if isinstance(returned, Mapping):
        columns = [_values(column) for column in returned.values()]
        _check_lengths(dict(zip(returned, map(len, columns), strict=True)))
        return [dict(zip(returned, row, strict=True)) for row in zip(*columns, strict=True)]
    from batchrunner.formats.columns import table_to_rows

    return table_to_rows(_table(returned))


def _table(returned: Any) -> pa.Table:
    import pyarrow as pa

    from batchrunner.formats.columns import rows_to_table

    if isinstance(returned, list):
        _check_rows(returned)
        return rows_to_table(returned)
    if isinstance(returned, pa.Table):
        return returned
    if isinstance(returned, pa.RecordBatch):
        return pa.Table.from_batches([returned])
    if isinstance(returned, Mapping):
        columns = {n: c if _is_flat(c) else _values(c) for n, c in returned.items()}
        _check_lengths({name: len(column) for name, column in columns.items()})
        return pa.table(columns)
    if type(returned).__module__.partition(".")[0] == "pandas" and hasattr(returned, "columns"):
        return pa.Table.from_pandas(returned, preserve_index=False)
    raise TypeError(
        f"the capability returned {type(returned).__name__} for a batch; it must return a list of "
        "dicts, a dict of columns, a DataFrame, a pyarrow Table, or a generator of those"
    )


def _is_flat(column: Any) -> bool:
    return getattr(column, "ndim", 0) == 1


def _values(column: Any) -> list[Any]:
    if hasattr(column, "tolist"):
        values: list[Any] = column.tolist()
        return values
    return list(column)


def _check_rows(rows: Sequence[Any]) -> None:
    wrong = [row for row in rows if not isinstance(row, dict)]
    if wrong:
        kind = type(wrong[0]).__name__
        raise TypeError(f"the capability returned {kind} as a row; rows are dicts")


def _check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns that the capability returned differ in length: {lengths}")
