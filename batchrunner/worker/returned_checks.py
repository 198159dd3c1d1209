"""Checks what a capability returned, before it is converted or divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def no_batch(returned: Any) -> TypeError:
    """Return the error for a capability that *returned* something that is no batch."""
    return TypeError(
        f"the capability returned {type(returned).__name__} for a batch; it must return a list of "
        "dicts, a dict of columns, a DataFrame, an Arrow table, or a generator of those"
    )


def check_polars(returned: Any) -> None:
    """Refuse a polars frame with Python objects: polars exports their addresses as bytes."""
    types = getattr(returned, "schema", {}) if module_of(returned) == "polars" else {}
    wrong = next((name for name, kind in types.items() if str(kind) == "Object"), None)
    if wrong is not None:
        raise TypeError(
            f"column {wrong!r} of polars' type Object holds Python objects: cast it to another type"
        )


def checked_column(name: Any, column: Any) -> Any:
    """Return *column*; refuse a value that is none, such as a string: its letters would be rows."""
    if not isinstance(name, str):
        raise TypeError(
            f"the capability returned a column called {name!r}: convert the name to str"
        )
    is_sequence = isinstance(column, Sequence) or (
        hasattr(column, "__len__") and hasattr(column, "__getitem__")
    )
    if isinstance(column, str | bytes | bytearray | memoryview | Mapping) or not is_sequence:
        raise TypeError(
            f"the capability returned {type(column).__name__} for the column {name!r}; a dict "
            "stands for columns, lists or arrays of one length: return a row as [row]"
        )
    if getattr(column, "ndim", 1) == 0:
        raise TypeError(
            f"the column {name!r} that the capability returned is an array of no dimension: return one "
            "value a row"
        )
    return column


def check_rows(rows: Sequence[Any]) -> None:
    """Check that each of the *rows* is a dict."""
    wrong = [kind for kind in dict.fromkeys(map(type, rows)) if not issubclass(kind, dict)]
    if wrong:
        kind = wrong[0].__name__
        raise TypeError(f"the capability returned a row of type {kind}; return each row as a dict")


def check_lengths(lengths: Mapping[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"the columns that the capability returned differ in length: {lengths}; return one value a row in each"
        )


def module_of(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def is_dataframe(returned: Any) -> bool:
    return module_of(returned) == "pandas" and hasattr(returned, "columns")


def own_table(returned: Any) -> pa.Table | None:
    r"""Return a batch of pyarrow's as a table; None for one of another library.

    pyarrow's own ways come first: in its C interface, which ends a name at the first NUL, a column
    `a\0b` would become `a`.
    """
    import pyarrow as pa

    if isinstance(returned, pa.Table):
        return returned
    if isinstance(returned, pa.RecordBatch):
        return pa.Table.from_batches([returned])
    if isinstance(returned, pa.RecordBatchReader):
        return returned.read_all()
    if _is_chunked_rows(returned):
        return pa.Table.from_struct_array(returned)
    return None


def _is_chunked_rows(returned: Any) -> bool:
    import pyarrow as pa

    is_chunked = isinstance(returned, pa.ChunkedArray) and pa.types.is_struct(returned.type)
    return is_chunked and not returned.null_count
