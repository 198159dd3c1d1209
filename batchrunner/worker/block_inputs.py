"""Turns blocks into what a stage is called with: batches of one form, as few as hold every row exactly.

Rows that one table cannot hold, or arrays of other types or shapes, are batches of their own: nothing is
filled in or converted to join them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.worker.batch import InputTypes, in_format
from batchrunner.worker.blocks import Block, Part, own, own_value
from batchrunner.worker.returned import to_rows, to_table
from batchrunner.worker.returned_checks import is_dataframe, module_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Input:
    """What one call of a stage gets.

    Attributes:
        argument: The batch, which the stage may change: it shares nothing with the block, nor a cell with
            another one.
        counts: How many of its rows have which types, in order.
        types: These types.
    """

    argument: Any
    counts: tuple[int, ...]
    types: tuple[InputTypes, ...]

    @property
    def rows(self) -> int:
        return sum(self.counts)


def inputs_of(block: Block, batch_format: str, *, one_to_one: bool = False) -> Iterator[Input]:
    """Yield the rows of *block*, in order, as batches in *batch_format*.

    Unless it is known which row of the output is of which (*one_to_one*), null means one thing in each batch: that
    the key is there and null, or that it is absent.

    Raises:
        SchemaError: No batch in that format can hold a value exactly.
    """
    if batch_format == "rows":
        rows, types = rows_in(block.copied().parts)
        yield Input(rows, tuple(part.rows for part in block.parts), types)
        return
    form = _FORMS[batch_format]
    parts = [one for part in block.parts for one in _in_form(part, batch_format, form)]
    for _, some in groupby(
        parts, key=lambda part: (form.signature(part), one_to_one or part.types.absent)
    ):
        together = list(some)
        argument = form.joined([part.content for part in together])
        yield Input(
            argument, tuple(part.rows for part in together), tuple(p.types for p in together)
        )


def rows_in(parts: Sequence[Part]) -> tuple[list[Row], tuple[InputTypes, ...]]:
    """Return the rows of *parts*, whose values they may share, and the types that the rows of each have."""
    rows: list[Row] = []
    for part in parts:
        rows += to_rows(part.content, part.types)
    return rows, tuple(map(_types_of_rows, parts))


def _types_of_rows(part: Part) -> InputTypes:
    """Return the types for the rows of *part* as dicts: keys that are absent are not there, as in any dict."""
    sure = _sure(part.types)
    if (table := part.table) is None:
        return InputTypes(sure)
    made = _without(table.schema, part.types.inferred)
    return InputTypes((made, *sure))


def _sure(types: InputTypes) -> tuple[pa.Schema, ...]:
    """Return the schemas of *types* without what was inferred from values: other values may be of another type."""
    return tuple(_without(schema, types.inferred) for schema in types.schemas)


def _without(schema: pa.Schema, inferred: pa.Schema | None) -> pa.Schema:
    """Return *schema* without the columns that have the type that was *inferred* for them."""
    if inferred is None:
        return schema
    import pyarrow as pa

    guessed = {field.name: field.type for field in inferred}
    return pa.schema([field for field in schema if guessed.get(field.name) != field.type])


@dataclass(frozen=True, slots=True)
class _Form:
    """One of the forms of a batch with columns.

    Attributes:
        is_one: Whether a content has the form already.
        signature: Equal for parts that may be one batch.
        joined: Returns contents of one signature as one batch of its own.
    """

    is_one: Callable[[Any], bool]
    signature: Callable[[Part], Any]
    joined: Callable[[Sequence[Any]], Any]


def _in_form(part: Part, batch_format: str, form: _Form) -> Iterator[Part]:
    """Yield the rows of *part* as parts whose content has that form."""
    if form.is_one(part.content):
        yield replace(part, content=own(part.content))
        return
    if batch_format == "numpy" and isinstance(part.content, Mapping) and part.content:
        yield replace(part, content=_arrays_of(part))
        return
    for table in _tables_of(part):
        if batch_format == "pyarrow":
            yield table
        else:
            yield Part(in_format(table.content, batch_format), table.rows, table.types)


def _arrays_of(part: Part) -> dict[str, Any]:
    """Return the columns of *part* as arrays: copies of those that are arrays."""
    import numpy as np

    arrays = {}
    for name, column in part.content.items():
        if module_of(column) == "numpy":
            arrays[name] = own_value(column)
        elif hasattr(column, "__array__") and module_of(column) not in {"pandas", "pyarrow"}:
            arrays[name] = np.array(column)  # a tensor
        else:
            table, _ = to_table({name: column}, part.types)
            arrays |= in_format(table, "numpy")
    return arrays


def _tables_of(part: Part) -> Iterator[Part]:
    """Yield the rows of *part* as tables.

    Raises:
        SchemaError: No table can hold a row.
    """
    if isinstance(part.content, list):
        yield from _tables_of_rows(part.content, part.types)
        return
    types = part.types
    table, rows = to_table(part.content, types)
    yield Part(table, rows, InputTypes((table.schema,), types.absent, types.inferred))


def _tables_of_rows(rows: list[Row], types: InputTypes) -> Iterator[Part]:
    import pyarrow as pa

    from batchrunner.formats.shapes import tables_of

    hints = _sure(types)
    known = {name for hint in hints for name in hint.names}
    for one in tables_of(rows, hints=hints):
        start, stop, shape = one.segment.start, one.segment.stop, one.segment.shape
        table = one.rows(start, stop)
        guessed = pa.schema([field for field in table.schema if field.name not in known])
        absent = shape.absent if shape else {}
        yield Part(table, stop - start, InputTypes((table.schema,), absent, guessed))


def _is_table(content: Any) -> bool:
    import pyarrow as pa

    return isinstance(content, pa.Table)


def _shape_of_table(part: Part) -> Any:
    return part.content.schema, part.types.absent, part.types.inferred is None


def _joined_tables(tables: Sequence[pa.Table]) -> pa.Table:
    from batchrunner.formats.columns import joined

    return joined(tables)


def _dtypes(part: Part) -> Any:
    names = tuple(part.content.index.names)
    return tuple(part.content.columns), tuple(map(str, part.content.dtypes)), names


def _joined_frames(frames: Sequence[Any]) -> Any:
    import pandas as pd

    frame = pd.concat(frames) if len(frames) > 1 else frames[0]
    # An index with a name is a column; another one only counts the rows.
    return frame.reset_index(drop=True) if frame.index.names == [None] else frame


def _is_arrays(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(module_of(column) == "numpy" for column in content.values())
    )


def _array_types(part: Part) -> Any:
    return tuple(
        (name, array.dtype.kind if array.dtype.kind in "US" else array.dtype, array.shape[1:])
        for name, array in part.content.items()
    )


def _joined_arrays(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _joined_array([one[name] for one in contents]) for name in contents[0]}


def _joined_array(arrays: Sequence[Any]) -> Any:
    import numpy as np

    if len(arrays) == 1:
        return arrays[0]
    masked = any(isinstance(array, np.ma.MaskedArray) for array in arrays)
    return (np.ma.concatenate if masked else np.concatenate)(arrays)


_FORMS = {
    "pyarrow": _Form(_is_table, _shape_of_table, _joined_tables),
    "pandas": _Form(is_dataframe, _dtypes, _joined_frames),
    "numpy": _Form(_is_arrays, _array_types, _joined_arrays),
}
