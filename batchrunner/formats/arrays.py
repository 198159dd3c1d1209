"""Python values as Arrow arrays: each value exactly as it is, or an error that names its column.

Arrow's own inference bends what does not fit: an integer among floats becomes a float, a date among
timestamps loses its time, text among bytes becomes bytes, a key that a struct lacks is dropped. Here
all values of a column must be of one kind, and each kind has one Arrow type. A hint may replace that
type by another one of the same kind: int32 for integers, timestamp[ns] for points in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.arrow_kinds import LIST, NUMBERS, QUICK, STRUCT, ArrowKind, kind_of, named
from batchrunner.formats.list_types import is_list, list_of
from batchrunner.formats.schema_error import SchemaError, first_line

Hints = tuple[pa.DataType, ...]

_PLAIN_INTEGERS = {int, type(None)}


def array_of(
    values: Sequence[Any], *, path: str, hints: Hints = (), lenient: bool = False
) -> pa.Array:
    """Return *values* as an array; None and pandas' NA become null.

    Args:
        values: The values of one column.
        path: The column's name, for errors; "column.field" or "column[]" for nested values.
        hints: Types that the column has elsewhere: the array gets the first one of the values' kind.
        lenient: Convert a mix of integers, floats and decimals to the first hint.

    Raises:
        SchemaError: The values are of several kinds, have no Arrow type, or do not fit theirs.
    """
    extension = next(filter(_is_extension, hints), None)
    if extension is not None:
        bare = tuple(h.storage_type if _is_extension(h) else h for h in hints)
        return _extended(array_of(values, path=path, hints=bare, lenient=lenient), extension)
    quick = _quickly(values, path=path, hints=hints)
    if quick is not None:
        return quick
    return _by_kind(values, path=path, hints=hints, lenient=lenient)


def _by_kind(values: Sequence[Any], *, path: str, hints: Hints, lenient: bool) -> pa.Array:
    classes: set[Any] = set(map(type, values))
    kinds = {kind for cls in classes if (kind := kind_of(cls, path)) is not None}
    missing = {cls for cls in classes if kind_of(cls, path) is None}
    if missing - {type(None)}:
        values = [None if type(value) in missing else value for value in values]
    if not kinds:
        return pa.nulls(len(values), hints[0] if hints else pa.null())
    if len(kinds) > 1:
        if lenient and hints and {kind.name for kind in kinds} <= NUMBERS:
            return _converted(values, _number_type(hints[0]), path)
        raise SchemaError(f"column {path!r} mixes {named(kinds)}: return values of one type")
    (kind,) = kinds
    if kind is LIST:
        return _list_array(values, path=path, hints=hints, lenient=lenient)
    if kind is STRUCT:
        return _struct_array(values, path=path, hints=hints, lenient=lenient)
    return _scalar_array(values, kind, path=path, hints=hints)


def _quickly(values: Sequence[Any], *, path: str, hints: Hints) -> pa.Array | None:
    """Return the array if Arrow's inference proves that the values are of one kind; else None.

    This saves a Python step per value. Arrow infers strings or booleans only if all values are such:
    with others among them, it infers another type, or raises. But it takes numpy's True for 1, so the
    classes of integers are compared first.
    """
    kind = QUICK.get(type(values[0])) if values else None
    if kind is None or (type(values[0]) is int and set(map(type, values)) - _PLAIN_INTEGERS):
        return None
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return None
    if not array.type.equals(kind.natural(values)):
        return None
    hint = next((hint for hint in hints if kind.fits(_logical(hint), values)), None)
    if hint is None or hint.equals(array.type):
        return array
    return _fewer_bits(array, hint, path) if pa.types.is_integer(hint) else None


def _fewer_bits(array: pa.Array, kind: pa.DataType, path: str) -> pa.Array:
    try:
        return array.cast(kind)
    except pa.ArrowException as error:
        raise SchemaError(_does_not_fit(path, kind, error)) from error


def _scalar_array(values: Sequence[Any], kind: ArrowKind, *, path: str, hints: Hints) -> pa.Array:
    kind_type = next((hint for hint in hints if kind.fits(_logical(hint), values)), None)
    if kind_type is None:
        return _converted(values, _natural(values, kind, path), path)
    array = _converted(values, kind_type, path)
    _check_exact(array, values, kind, path)
    return array


def _natural(values: Sequence[Any], kind: ArrowKind, path: str) -> pa.DataType:
    try:
        return kind.natural(values)
    except (pa.ArrowException, ValueError) as error:
        raise SchemaError(f"column {path!r}: {first_line(error)}") from error


def _converted(values: Sequence[Any], kind_type: pa.DataType, path: str) -> pa.Array:
    try:
        return pa.array(values, kind_type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SchemaError(_does_not_fit(path, kind_type, error)) from error


def _does_not_fit(path: str, kind: pa.DataType, error: Exception) -> str:
    return (
        f"column {path!r}, {kind}: {first_line(error)}; convert the values, or declare its type in "
        "sink.schema"
    )


def _check_exact(array: pa.Array, values: Sequence[Any], kind: ArrowKind, path: str) -> None:
    """Check that the hint's type rounded no value: Arrow rounds floats and times silently."""
    if not (pa.types.is_floating(array.type) or pa.types.is_temporal(array.type)):
        return
    natural = kind.natural(values)
    if array.type.equals(natural) or pa.types.is_date(array.type):
        return
    try:
        exact = same_values(array.cast(natural), pa.array(values, natural))
    except (pa.ArrowException, OverflowError) as error:
        raise SchemaError(_does_not_fit(path, array.type, error)) from error
    if not exact:
        raise SchemaError(
            f"column {path!r}: {natural} values that {array.type}, its type in the source or "
            "the sink, cannot hold exactly; declare its type in sink.schema, or use another name"
        )


def same_values(one: pa.Array, other: pa.Array) -> bool:
    """Return whether two arrays of one type have equal values: NaN is NaN, -0.0 is not 0.0."""
    if not pa.types.is_floating(one.type):
        return bool(one.equals(other))
    one, other = one.cast(pa.float64()), other.cast(pa.float64())
    bits = pc.equal(one.view(pa.int64()), other.view(pa.int64()))
    same = pc.or_(bits, pc.and_(pc.is_nan(one), pc.is_nan(other)))
    return bool(one.null_count == other.null_count and pc.all(same).as_py() is not False)


def _list_array(values: Sequence[Any], *, path: str, hints: Hints, lenient: bool) -> pa.Array:
    lists = [_as_sequence(value, path) for value in values]
    flat = list(chain.from_iterable(inner for inner in lists if inner is not None))
    pairs = next((hint for hint in hints if pa.types.is_map(hint)), None)
    if pairs is not None and all(type(item) is tuple and len(item) == 2 for item in flat):
        return _map_array(lists, flat, pairs, path=path, lenient=lenient)
    wanted = [hint for hint in hints if is_list(hint)]
    inner_hints = tuple(hint.value_type for hint in wanted)
    arrays = [inner for inner in lists if inner is not None]
    if flat and all(_is_numeric(array) for array in arrays):
        child = _joined_numbers(arrays, f"{path}[]")
    else:
        child = array_of(flat, path=f"{path}[]", hints=inner_hints, lenient=lenient)
    return list_of(lists, child, wanted[0] if wanted else None, path=path)


def _is_extension(kind: pa.DataType) -> bool:
    """Return whether *kind* is an extension type with the Python values of its storage type."""
    return isinstance(kind, pa.BaseExtensionType) and not kind.equals(pa.uuid())


def _extended(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if not array.type.equals(kind.storage_type):
        return array
    return pa.ExtensionArray.from_storage(kind, array)


def _as_sequence(value: Any, path: str) -> Sequence[Any] | None:
    if value is None or isinstance(value, list | tuple):
        return value
    if getattr(value, "ndim", 1) == 0:
        raise SchemaError(
            f"column {path!r} mixes lists and a numpy array of no dimension: return lists only"
        )
    if getattr(value, "mask", False) is not False:  # a masked array
        return value.tolist()  # type: ignore[no-any-return]  # of numpy's
    return value if getattr(value, "ndim", 1) == 1 else list(value)


def _is_numeric(array: Any) -> bool:
    return getattr(getattr(array, "dtype", None), "kind", "O") in "biuf"


def _joined_numbers(arrays: Sequence[Any], path: str) -> pa.Array:
    """Return the numbers of the numpy *arrays*, concatenated. An empty one may have any dtype."""
    import numpy as np

    arrays = [array for array in arrays if len(array)]
    types = sorted({str(array.dtype) for array in arrays})
    if len(types) > 1:  # numpy would make floats of int64 and uint64
        raise SchemaError(
            f"column {path!r} mixes numpy's {' and '.join(types)}: convert to one dtype"
        )
    return pa.array(np.concatenate(arrays))


def _map_array(
    lists: Sequence[Sequence[Any] | None],
    pairs: Sequence[tuple[Any, Any]],
    like: pa.DataType,
    *,
    path: str,
    lenient: bool,
) -> pa.Array:
    keys = array_of(
        [key for key, _ in pairs], path=f"{path}.key", hints=(like.key_type,), lenient=lenient
    )
    items = array_of(
        [item for _, item in pairs], path=f"{path}.value", hints=(like.item_type,), lenient=lenient
    )
    if keys.null_count:
        raise SchemaError(f"column {path!r}: a map has a null key: drop it, or give it a value")
    lengths = (0 if inner is None else len(inner) for inner in lists)
    offsets = pa.array(list(accumulate(lengths, initial=0)), pa.int32())
    nulls = pa.array([inner is None for inner in lists], pa.bool_())
    return pa.MapArray.from_arrays(offsets, keys, items, mask=nulls)


def _struct_array(values: Sequence[Any], *, path: str, hints: Hints, lenient: bool) -> pa.Array:
    like = next((hint for hint in hints if pa.types.is_struct(hint) or pa.types.is_map(hint)), None)
    if like is not None and pa.types.is_map(like):
        lists = [None if value is None else tuple(value.items()) for value in values]
        flat = list(chain.from_iterable(inner for inner in lists if inner is not None))
        return _map_array(lists, flat, like, path=path, lenient=lenient)
    keys = dict.fromkeys(chain.from_iterable(value for value in values if value is not None))
    nulls = pa.array([value is None for value in values], pa.bool_())
    if not keys:
        return pa.array([None if value is None else {} for value in values], pa.struct([]))
    children = []
    for key in keys:
        check_key(key, f"column {path!r}: ")
        inner = [None if value is None else value.get(key) for value in values]
        inner_hints = tuple(h.field(key).type for h in hints if _has_field(h, key))
        children.append(array_of(inner, path=f"{path}.{key}", hints=inner_hints, lenient=lenient))
    fields = [pa.field(key, child.type) for key, child in zip(keys, children, strict=True)]
    return pa.StructArray.from_arrays(children, fields=fields, mask=nulls)


def check_key(key: Any, place: str = "") -> None:
    """Check that *key* can name a column or a field; *place* begins the error message.

    Raises:
        SchemaError: It is no string, or has a lone surrogate, which UTF-8 cannot encode.
    """
    if not isinstance(key, str):
        raise SchemaError(f"{place}the key {key!r} is no string: convert it to str")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise SchemaError(
                f"{place}the key {key!r} is not in UTF-8: remove its surrogates"
            ) from error


def _has_field(hint: pa.DataType, key: str) -> bool:
    return bool(pa.types.is_struct(hint) and hint.get_field_index(key) >= 0)


def _logical(hint: pa.DataType) -> pa.DataType:
    return hint.value_type if pa.types.is_dictionary(hint) else hint


def _number_type(hint: pa.DataType) -> pa.DataType:
    return pa.float64() if pa.types.is_floating(hint) else hint
