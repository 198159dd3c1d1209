"""Makes list arrays of Arrow's five list types, from all items in one array."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.schema_error import CONVERT, SchemaError


def list_of(
    lists: Sequence[Sequence[Any] | None], child: pa.Array, like: pa.DataType | None, *, path: str
) -> pa.Array:
    """Return *lists* as an array; *child* has the items of all of them, in order.

    The array has the list type of *like*; without it, `list`.
    """
    lengths = [0 if inner is None else len(inner) for inner in lists]
    nulls = pa.array([inner is None for inner in lists], pa.bool_())
    if like is not None and pa.types.is_fixed_size_list(like):
        return _fixed_size(lists, child, like, path=path)
    return joined_lists(pa.array(lengths, pa.int32()), child, nulls, like)


def joined_lists(
    lengths: pa.Array, child: pa.Array, nulls: pa.Array, like: pa.DataType | None
) -> pa.Array:
    """Return an array of lists with *lengths*, of the items in *child*; null where *nulls* is true.

    The length of a null list must be 0.
    """
    t = pa.types
    like = like or pa.list_(pa.null())
    large = t.is_large_list(like) or t.is_large_list_view(like)
    width = pa.int64() if large else pa.int32()
    ends = pa.concat_arrays([pa.array([0], width), pc.cumulative_sum(lengths.cast(width))])
    if t.is_list_view(like) or t.is_large_list_view(like):
        maker = pa.LargeListViewArray if large else pa.ListViewArray
        return maker.from_arrays(
            ends.slice(0, len(lengths)), lengths.cast(width), child, mask=nulls
        )
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(ends, child, mask=nulls)


def _fixed_size(
    lists: Sequence[Sequence[Any] | None], child: pa.Array, like: pa.DataType, *, path: str
) -> pa.Array:
    size = like.list_size
    wrong = next((len(i) for i in lists if i is not None and len(i) != size), None)
    if wrong is not None:
        raise SchemaError(f"column {path!r}: a list of {wrong} where {like} has {size}{CONVERT}")
    if not size:  # for which Arrow makes no array of a child
        return pa.array(list(lists), like)
    if child.null_count == 0 and all(inner is not None for inner in lists):
        return pa.FixedSizeListArray.from_arrays(child, size)
    starts = accumulate((0 if inner is None else size for inner in lists), initial=0)
    pieces = [  # not by `take`, which Arrow does not support for views
        pa.nulls(size, child.type) if inner is None else child.slice(start, size)
        for inner, start in zip(lists, starts, strict=False)
    ]
    nulls = pa.array([inner is None for inner in lists], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.concat_arrays(pieces), size, mask=nulls)


def like_list(like: pa.DataType, inner: pa.DataType) -> pa.DataType:
    """Return the type of lists of *inner*, with the list type of *like*."""
    if pa.types.is_fixed_size_list(like):
        return pa.list_(inner, like.list_size)
    makers = (
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    )
    return next((make(inner) for check, make in makers if check(like)), pa.list_(inner))


def is_list(kind: pa.DataType) -> bool:
    """Return whether *kind* is one of Arrow's five list types; a map is none."""
    t = pa.types
    checks = (
        t.is_list,
        t.is_large_list,
        t.is_fixed_size_list,
        t.is_list_view,
        t.is_large_list_view,
    )
    return any(check(kind) for check in checks)
