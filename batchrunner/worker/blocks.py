"""Blocks: rows on their way from one stage to the next, as the stage before returned them.

A stage that takes what the one before returned gets just that. Else it is converted as it would be for a
sink and from a source (`worker/block_inputs.py`): every value comes out as it went in, or the call fails.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate
from types import NoneType
from typing import TYPE_CHECKING, Any, Self

from batchrunner.worker.batch import InputTypes
from batchrunner.worker.dividing import Imported, count_of, cuttable, rows_of
from batchrunner.worker.returned_checks import check_rows, is_dataframe, module_of, own_table

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLED = 16
"""Rows that are weighed to estimate the weight of all."""


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows that have one form and one origin.

    Attributes:
        content: The rows: a list of dicts, a mapping of columns, a DataFrame, or an Arrow table.
        rows: Their number.
        types: The types that their columns had in the source or in an earlier stage: those that pass keep
            them.
    """

    content: Any
    rows: int
    types: InputTypes = field(default_factory=InputTypes)

    @classmethod
    def of(cls, returned: Any, types: InputTypes) -> Self:
        """Return what a capability *returned* for a batch.

        Raises:
            TypeError: It is no batch, or one of its rows is no dict.
            ValueError: Its columns differ in length.
        """
        content = cuttable(returned)
        if isinstance(content, list):
            check_rows(content)
        return cls(content, count_of(content), types)

    def slice(self, start: int, stop: int) -> Part:
        """Return rows *start* to *stop*."""
        if (start, stop) == (0, self.rows):
            return self
        return replace(self, content=rows_of(self.content, start, stop), rows=stop - start)

    @property
    def table(self) -> pa.Table | None:
        """The rows, if they are an Arrow table, or one of another library that was read as one."""
        return self.content.table if isinstance(self.content, Imported) else own_table(self.content)

    @property
    def nbytes(self) -> int:
        """About how many bytes the rows take."""
        return weight_of(self.content)

    def __reduce__(self) -> tuple[Any, ...]:
        table = self.table
        if table is None:
            return Part, (self.content, self.rows, self.types)
        is_own = not isinstance(self.content, Imported)
        return _unpacked, (_packed(table), self.rows, self.types, is_own)


def _packed(table: pa.Table) -> Any:
    """Return *table* as bytes: pickled as it is, a slice would take along the table that it is cut from."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _unpacked(data: Any, rows: int, types: InputTypes, is_own: bool) -> Part:
    import pyarrow as pa

    from batchrunner.formats.columns import bare_table

    table = pa.ipc.open_stream(data).read_all()
    # Without columns, it loses the number of its rows on the way.
    table = table if table.num_columns else bare_table(rows)
    return Part(table if is_own else Imported(table), rows, types)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows on their way. Survives pickling with every value and type; a slice takes only its own rows along.

    Attributes:
        parts: The rows, in order.
    """

    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def nbytes(self) -> int:
        """About how many bytes the rows take."""
        return sum(part.nbytes for part in self.parts)

    def slice(self, start: int, stop: int) -> Block:
        """Return rows *start* to *stop*, without a copy where the form allows that."""
        return Block(tuple(self._cut(start, stop)))

    def copied(self) -> Block:
        """Return the rows as the receiver's own: what it changes in them, it changes for itself alone."""
        return Block(tuple(replace(part, content=own(part.content)) for part in self.parts))

    def _cut(self, start: int, stop: int) -> Iterator[Part]:
        for part, last in zip(self.parts, accumulate(p.rows for p in self.parts), strict=True):
            first = last - part.rows
            if max(first, start) < min(last, stop):
                yield part.slice(max(start - first, 0), min(stop, last) - first)


def joined(blocks: Sequence[Block]) -> Block:
    """Return the rows of *blocks*, in order, as one block. Copies nothing."""
    return Block(tuple(part for block in blocks for part in block.parts))


def weight_of(content: Any) -> int:
    """Return about how many bytes *content* takes: rows, columns, a frame or a table."""
    if isinstance(content, list):
        some = content[:: max(len(content) // _SAMPLED, 1)]
        return sum(map(_weight, some)) * len(content) // max(len(some), 1)
    if isinstance(content, Mapping):
        return sum(map(_weight_of_column, content.values()))
    if is_dataframe(content):
        return sum(_weight_of_column(content[name]) for name in content.columns)
    return int((content.table if isinstance(content, Imported) else content).nbytes)


def _weight_of_column(column: Any) -> int:
    try:
        if hasattr(getattr(column, "dtype", None), "pyarrow_dtype"):
            return int(column.array.__arrow_array__().nbytes)
        if getattr(getattr(column, "dtype", None), "kind", "O") != "O":
            return int(column.nbytes)
        return weight_of(list(column))
    except Exception:  # noqa: BLE001 - a column of any library: its weight is only an estimate
        return 64 * len(column)


def _weight(value: Any) -> int:
    if isinstance(value, str | bytes | bytearray):
        return 49 + len(value)
    if isinstance(value, Mapping):
        return 64 + sum(_weight(key) + _weight(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return 56 + weight_of(list(value))
    return int(getattr(value, "nbytes", 32))


def own(content: Any) -> Any:
    """Return a copy of *content* that shares nothing that can be changed with it.

    Nor do two of its cells: `np.repeat` of a column of lists, say, has each list in several rows.
    """
    if isinstance(content, list):
        return [own_value(row) for row in content]
    if isinstance(content, Mapping):
        return {name: own_value(column) for name, column in content.items()}
    if module_of(content) == "polars":  # it puts columns in place of others, and changes no memory
        return content.clone()
    return _own_frame(content) if is_dataframe(content) else content  # nor does Arrow


def own_value(value: Any) -> Any:
    """Return a copy of *value*, a row, a column or what is in one, as `own` does."""
    kind = type(value)
    if kind in _UNCHANGING:
        return value
    if kind is dict:
        if _UNCHANGING.issuperset(map(type, value.values())):
            return value.copy()
        return {key: own_value(one) for key, one in value.items()}
    if kind is list or kind is tuple:
        return kind(value if _UNCHANGING.issuperset(map(type, value)) else map(own_value, value))
    return _own_object(value)


def _own_object(value: Any) -> Any:
    module = module_of(value)
    if module == "numpy" and hasattr(value, "dtype"):
        return _own_array(value)
    if module == "pandas" and hasattr(value, "iloc"):
        return _own_frame(value) if is_dataframe(value) else _own_series(value)
    return copy.deepcopy(value)


def _own_array(array: Any) -> Any:
    if not array.dtype.hasobject:
        return array.copy()
    if array.dtype.kind != "O":
        return copy.deepcopy(array)
    import numpy as np

    copied = array.copy()  # of the references alone
    cells = np.asarray(copied).reshape(-1)
    for index, cell in enumerate(cells.tolist()):
        if type(cell) not in _UNCHANGING:
            cells[index] = own_value(cell)
    return copied


def _own_frame(frame: Any) -> Any:
    copied = frame.copy()  # of objects, it copies the references alone
    for place in frame.dtypes.eq(object).to_numpy().nonzero()[0]:
        copied.isetitem(place, _own_series(frame.iloc[:, place]))
    return copied


def _own_series(series: Any) -> Any:
    if series.dtype != object:
        return series.copy()
    cells = _own_array(series.to_numpy())
    return type(series)(cells, index=series.index, dtype=object, name=series.name)


_UNCHANGING = {str, bytes, int, float, bool, NoneType, Decimal, date, datetime, time, timedelta}
