"""What a capability of this package is called with, and what it returns beside its own columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def column_of(batch: Any, name: str, *, way_out: str = "column") -> Any:
    """Return the column *name* of a batch of columns.

    Raises:
        TypeError: The batch is no dict of columns.
        ValueError: It has no such column.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"the batch is a {type(batch).__name__} and not a dict of columns: add execution: "
            "{batch_format: numpy}"
        )
    if name not in batch:
        raise ValueError(
            f"no column {name!r}, there are {', '.join(batch)}: name it in "
            f"capability.fn_constructor_kwargs.{way_out}"
        )
    return batch[name]


def check_rows(batch: Any) -> None:
    """Check that *batch* is a list of rows.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(batch, list):
        raise TypeError(
            f"the batch is a {type(batch).__name__} and not a list of rows: add execution: "
            "{batch_format: rows}"
        )


def kept(batch: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """Return the columns *names* of *batch*, or all (None).

    Raises:
        ValueError: It has no such column.
    """
    if names is None:
        return dict(batch)
    return {name: column_of(batch, name, way_out="keep") for name in names}
