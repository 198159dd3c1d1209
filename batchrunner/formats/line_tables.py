"""Tables that were read from lines, and are still as they were read.

Most capabilities add columns. What they return then begins with the very columns that they got, and its
lines with those that stand in the source: they are not made again, but copied, if each value stands
there as it would be written.

That they are the very columns is known by where they lie in memory. So this memory cannot be written to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from batchrunner.formats.json_layout import Places
from batchrunner.formats.json_texts import NotPlainError, texts

_remembered: WeakValueDictionary[int, LineTable] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class LineTable:
    """A table, and the lines that it was read from.

    Attributes:
        table: The rows; each column is one array.
        data: The lines.
        ends: By row, where its line ends, with the newline.
        may_be_as_written: Whether nothing but values of *unproven* columns may stand in the lines
            otherwise than it would be written.
        unproven: By number of the column, the texts that stand in the lines.
    """

    table: pa.Table
    data: bytes
    ends: Places
    may_be_as_written: bool
    unproven: Mapping[int, pa.StringArray]

    @cached_property
    def is_as_written(self) -> bool:
        """Whether the rows would be written as the lines that they were read from."""
        return self.may_be_as_written and all(
            _is_written(self.table.column(number).chunk(0), found)
            for number, found in self.unproven.items()
        )

    def remember(self) -> None:
        """Let `line_table_of` find this one, for as long as another object holds it."""
        address = _addresses(self.table.column(0).chunk(0))[-1]
        if address is not None:
            _remembered[address] = self

    def first_row(self, batch: pa.RecordBatch) -> int | None:
        """Return the row that *batch* begins with, if it begins with all columns; None if it does not.

        They are the same columns if they lie in the same memory, which this object keeps.
        """
        if batch.schema.names[: self.table.num_columns] != self.table.column_names:
            return None
        columns = [column.chunk(0) for column in self.table.columns]
        first = int(batch.column(0).offset - columns[0].offset)
        is_inside = 0 <= first <= first + batch.num_rows <= self.table.num_rows
        same = (_is_slice(batch.column(n), one, first) for n, one in enumerate(columns))
        return first if is_inside and all(same) else None

    def lines(self, start: int, stop: int) -> pa.Buffer:
        """Return the lines of rows *start* to *stop*."""
        begin = int(self.ends[start - 1]) if start else 0
        return pa.py_buffer(self.data)[begin : int(self.ends[stop - 1])]

    def shifted(self, start: int, stop: int, *, by: int) -> pa.StringArray:
        """Return the same lines, each without its last *by* bytes, and with those of the line before."""
        ends = np.empty(stop - start + 1, np.int32)
        ends[0] = self.ends[start - 1] - by if start else 0
        ends[1:] = self.ends[start:stop] - by
        return pa.StringArray.from_buffers(
            stop - start, pa.py_buffer(ends), pa.py_buffer(self.data)
        )


def read_only(array: pa.Array) -> pa.Array:
    """Return *array*, which is not nested, in the same memory, which numpy then refuses to change."""
    buffers = [buffer and buffer.slice() for buffer in array.buffers()]  # a slice is never mutable
    return pa.Array.from_buffers(
        array.type, len(array), buffers, array.null_count, offset=array.offset
    )


def line_table_of(batch: pa.RecordBatch) -> tuple[LineTable, int] | None:
    """Return the table that all first columns of *batch* were read into, and their first row.

    None if there is none, or if the rows would be written otherwise than they stood.
    """
    address = _addresses(batch.column(0))[-1]
    read = None if address is None else _remembered.get(address)
    first = None if read is None else read.first_row(batch)
    return (read, first) if read and first is not None and read.is_as_written else None


def _is_written(column: pa.Array, found: pa.StringArray) -> bool:
    try:
        (written,) = texts(column)
    except NotPlainError:
        return False
    return bool(written.equals(found))


def _is_slice(array: pa.Array, whole: pa.Array, first: int) -> bool:
    is_like = array.type.equals(whole.type) and array.offset - whole.offset == first
    return bool(is_like) and _addresses(array) == _addresses(whole)


def _addresses(array: pa.Array) -> list[int | None]:
    return [None if buffer is None else buffer.address for buffer in array.buffers()]
