"""Python values as Arrow arrays: each value exactly as it is, or an error that names its column.

Arrow's own inference bends what does not fit: an integer among floats becomes a float, a date among
timestamps loses its time, text among bytes becomes bytes, a key that a struct lacks is dropped. Here
a column has values of one kind, and a kind has one type; another type is taken only as a hint, and
only if it is of the same kind: int32 for integers, timestamp[ns] for points in time.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Hints = tuple[pa.DataType, ...]

_MAX_DIGITS = 38


class SchemaError(ValueError):
    """A column does not fit: the message names it and both types."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What values of some Python classes are to Arrow.

    Attributes:
        name: For people.
        natural: The type of such values when nothing else is known.
        fits: Whether a type can hold such values, as far as it alone can tell.
    """

    name: str
    natural: Callable[[Sequence[Any]], pa.DataType]
    fits: Callable[[pa.DataType, Sequence[Any]], bool]


def array_of(
    values: Sequence[Any], *, path: str, hints: Hints = (), lenient: bool = False
) -> pa.Array:
    """Return *values* as an array; those that are None, or pandas' NA, are null.

    Args:
        values: Of one column.
        path: Its name, for errors; of a nested one "column.field", "column[]".
        hints: Types that it has elsewhere: the first one of the values' kind is the array's.
        lenient: Take integers among floats where the first hint is a float, or a decimal.

    Raises:
        SchemaError: The values are of several kinds, of none that Arrow has, or do not fit.
    """
    named = next(filter(_is_extension, hints), None)
    if named is not None:
        bare = tuple(h.storage_type if _is_extension(h) else h for h in hints)
        return _extended(array_of(values, path=path, hints=bare, lenient=lenient), named)
    quick = _quickly(values, path=path, hints=hints)
    if quick is not None:
        return quick
    return _by_kind(values, path=path, hints=hints, lenient=lenient)


def _by_kind(values: Sequence[Any], *, path: str, hints: Hints, lenient: bool) -> pa.Array:
    classes = set(map(type, values))
    kinds = {kind for kind in (_kind(cls, path) for cls in classes) if kind is not None}
    if any(cls is not type(None) and _kind(cls, path) is None for cls in classes):
        values = [None if _kind(type(value), path) is None else value for value in values]
    if not kinds:
        return pa.nulls(len(values), hints[0] if hints else pa.null())
    if len(kinds) > 1:
        if lenient and hints and {kind.name for kind in kinds} <= _NUMBERS:
            return _converted(values, _number_type(hints[0]), path)
        raise SchemaError(f"column {path!r}: {_named(kinds)} in one column")
    (kind,) = kinds
    if kind is _LIST:
        return _list_array(values, path=path, hints=hints, lenient=lenient)
    if kind is _STRUCT:
        return _struct_array(values, path=path, hints=hints, lenient=lenient)
    return _scalar_array(values, kind, path=path, hints=hints)


def _quickly(values: Sequence[Any], *, path: str, hints: Hints) -> pa.Array | None:
    """Return the array of values that are surely of one kind, without a look at each; else None.

    What Arrow infers to be integers, strings or booleans was nothing else: among other values it
    infers something else, or raises.
    """
    kind = _QUICK.get(type(values[0])) if values else None
    if kind is None:
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
        raise SchemaError(f"column {path!r}, {kind}: {first_line(error)}") from error


def _scalar_array(values: Sequence[Any], kind: Kind, *, path: str, hints: Hints) -> pa.Array:
    kind_type = next((hint for hint in hints if kind.fits(_logical(hint), values)), None)
    if kind_type is None:
        return _converted(values, _natural(values, kind, path), path)
    array = _converted(values, kind_type, path)
    _check_exact(array, values, kind, path)
    return array


def _natural(values: Sequence[Any], kind: Kind, path: str) -> pa.DataType:
    try:
        return kind.natural(values)
    except (pa.ArrowException, ValueError) as error:
        raise SchemaError(f"column {path!r}: {first_line(error)}") from error


def _converted(values: Sequence[Any], kind_type: pa.DataType, path: str) -> pa.Array:
    try:
        return pa.array(values, kind_type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SchemaError(f"column {path!r}, {kind_type}: {first_line(error)}") from error


def _check_exact(array: pa.Array, values: Sequence[Any], kind: Kind, path: str) -> None:
    """Refuse what a hint's type has rounded: Arrow does not say so of these."""
    if not (pa.types.is_floating(array.type) or pa.types.is_temporal(array.type)):
        return
    natural = kind.natural(values)
    if array.type.equals(natural) or pa.types.is_date(array.type):
        return
    try:
        exact = same_values(array.cast(natural), pa.array(values, natural))
    except (pa.ArrowException, OverflowError) as error:
        raise SchemaError(f"column {path!r}, {array.type}: {first_line(error)}") from error
    if not exact:
        raise SchemaError(
            f"column {path!r}: {natural} values that {array.type}, its type in the source or "
            "the sink, cannot hold exactly; declare its type in sink.schema, or use another name"
        )


def same_values(one: pa.Array, other: pa.Array) -> bool:
    """Tell whether two arrays of one type have the same values: NaN is NaN, and -0.0 is not 0.0."""
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


def list_of(
    lists: Sequence[Sequence[Any] | None], child: pa.Array, like: pa.DataType | None, *, path: str
) -> pa.Array:
    """Return the array of *lists*, whose items one after the other are *child*.

    Its type is a list, or of the same class as *like*.
    """
    lengths = [0 if inner is None else len(inner) for inner in lists]
    nulls = pa.array([inner is None for inner in lists], pa.bool_())
    if like is not None and pa.types.is_fixed_size_list(like):
        return _fixed_size(lists, child, like, path=path)
    return joined_lists(pa.array(lengths, pa.int32()), child, nulls, like)


def joined_lists(
    lengths: pa.Array, child: pa.Array, nulls: pa.Array, like: pa.DataType | None
) -> pa.Array:
    """Return lists of *lengths*, which are 0 where *nulls* is true, of the items in *child*."""
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
        raise SchemaError(f"column {path!r}: a list of {wrong} where {like} has {size}")
    if child.null_count == 0 and all(inner is not None for inner in lists):
        return pa.FixedSizeListArray.from_arrays(child, size)
    starts = accumulate((0 if inner is None else size for inner in lists), initial=0)
    pieces = [  # not by `take`, which Arrow has not for views
        pa.nulls(size, child.type) if inner is None else child.slice(start, size)
        for inner, start in zip(lists, starts, strict=False)
    ]
    nulls = pa.array([inner is None for inner in lists], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.concat_arrays(pieces), size, mask=nulls)


def like_list(like: pa.DataType, inner: pa.DataType) -> pa.DataType:
    """Return the type of lists of *inner*, of the same class as *like*."""
    if pa.types.is_fixed_size_list(like):
        return pa.list_(inner, like.list_size)
    makers = (
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    )
    return next((make(inner) for check, make in makers if check(like)), pa.list_(inner))


def _is_extension(kind: pa.DataType) -> bool:
    """Tell whether *kind* is a name for another type, whose values it has in Python."""
    return isinstance(kind, pa.BaseExtensionType) and not kind.equals(pa.uuid())


def _extended(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if not array.type.equals(kind.storage_type):
        return array
    return pa.ExtensionArray.from_storage(kind, array)


def is_list(kind: pa.DataType) -> bool:
    """Tell whether *kind* is a list of any class; a map is none."""
    t = pa.types
    checks = (
        t.is_list,
        t.is_large_list,
        t.is_fixed_size_list,
        t.is_list_view,
        t.is_large_list_view,
    )
    return any(check(kind) for check in checks)


def _as_sequence(value: Any, path: str) -> Sequence[Any] | None:
    if value is None or isinstance(value, list | tuple):
        return value
    if getattr(value, "ndim", 1) == 0:
        raise SchemaError(f"column {path!r}: an array of no dimension among lists")
    if getattr(value, "mask", False) is not False:  # a masked array
        return value.tolist()  # type: ignore[no-any-return]  # of numpy's
    return value if getattr(value, "ndim", 1) == 1 else list(value)


def _is_numeric(array: Any) -> bool:
    return getattr(getattr(array, "dtype", None), "kind", "O") in "biuf"


def _joined_numbers(arrays: Sequence[Any], path: str) -> pa.Array:
    """Return the numbers of numpy's *arrays* one after the other. An empty one may be of any type."""
    import numpy as np

    arrays = [array for array in arrays if len(array)]
    types = sorted({str(array.dtype) for array in arrays})
    if len(types) > 1:  # numpy would make floats of int64 and uint64
        raise SchemaError(f"column {path!r}: numpy's {' and '.join(types)} in one column")
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
        raise SchemaError(f"column {path!r}: a map has no null keys")
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
    """Refuse what can be no name of a column, or of a field in one.

    Raises:
        SchemaError: It is no string, or one with a lone surrogate, which UTF-8 has not.
    """
    if not isinstance(key, str):
        raise SchemaError(f"{place}the key {key!r} is no string")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise SchemaError(f"{place}the key {key!r} is not in UTF-8") from error


def _has_field(hint: pa.DataType, key: str) -> bool:
    return bool(pa.types.is_struct(hint) and hint.get_field_index(key) >= 0)


def first_line(error: BaseException) -> str:
    """Return what *error* says, without what follows its first line."""
    return str(error).partition("\n")[0][:200]


def _logical(hint: pa.DataType) -> pa.DataType:
    return hint.value_type if pa.types.is_dictionary(hint) else hint


def _number_type(hint: pa.DataType) -> pa.DataType:
    return pa.float64() if pa.types.is_floating(hint) else hint


def _present(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if value is not None)


def _decimal_type(values: Sequence[Any]) -> pa.DataType:
    """All digits that Arrow has, and the scale of the first value: other values do not matter."""
    exponent = next(_present(values)).as_tuple().exponent
    if not isinstance(exponent, int):
        raise SchemaError(f"the decimal {next(_present(values))} is no number")
    return pa.decimal128(_MAX_DIGITS, max(0, -exponent))


def _zone(values: Sequence[Any]) -> str | None:
    zones = {value.tzinfo for value in _present(values)}
    names = {None if zone is None else pa.lib.tzinfo_to_string(zone) for zone in zones}
    if len(names) > 1:
        raise SchemaError(f"time zones {sorted(map(str, names))} in one column")
    return next(iter(names))


def _is_instant(kind: pa.DataType, values: Sequence[Any]) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz == _zone(values))


def _time_type(values: Sequence[Any]) -> pa.DataType:
    if any(value.tzinfo is not None for value in _present(values)):
        raise SchemaError("a time of day with a time zone, which Arrow has not")
    return pa.time64("us")


def _numpy_type(values: Sequence[Any]) -> pa.DataType:
    kinds = {value.dtype for value in _present(values)}
    if len(kinds) > 1:
        raise SchemaError(f"numpy's {' and '.join(sorted(map(str, kinds)))} in one column")
    return pa.from_numpy_dtype(next(iter(kinds)))


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return any(check(kind) for check in (t.is_string, t.is_large_string, t.is_string_view))


def _is_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    checks = (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _by(check: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType, Sequence[Any]], bool]:
    return lambda kind, _: check(kind)


def _always(kind: pa.DataType) -> Callable[[Sequence[Any]], pa.DataType]:
    return lambda _: kind


_INT = Kind("integers", _always(pa.int64()), _by(pa.types.is_integer))
_FLOAT = Kind("floats", _always(pa.float64()), _by(pa.types.is_floating))
_DECIMAL = Kind("decimals", _decimal_type, _by(pa.types.is_decimal))
_LIST = Kind("lists", _always(pa.list_(pa.null())), _by(is_list))
_STRUCT = Kind("objects", _always(pa.struct([])), _by(pa.types.is_struct))
_PANDAS_TIME = Kind(
    "pandas' timestamps", lambda values: pa.timestamp("ns", _zone(values)), _is_instant
)
_PANDAS_DURATION = Kind("pandas' durations", _always(pa.duration("ns")), _by(pa.types.is_duration))
_NUMBERS = {_INT.name, _FLOAT.name, _DECIMAL.name}
_KINDS: Mapping[type, Kind | None] = {
    type(None): None,
    bool: Kind("booleans", _always(pa.bool_()), _by(pa.types.is_boolean)),
    int: _INT,
    float: _FLOAT,
    str: Kind("strings", _always(pa.string()), _by(_is_text)),
    bytes: Kind("bytes", _always(pa.binary()), _by(_is_bytes)),
    dt.datetime: Kind("timestamps", lambda values: pa.timestamp("us", _zone(values)), _is_instant),
    dt.date: Kind("dates", _always(pa.date32()), _by(pa.types.is_date)),
    dt.time: Kind("times", _time_type, _by(pa.types.is_time)),
    dt.timedelta: Kind("durations", _always(pa.duration("us")), _by(pa.types.is_duration)),
    Decimal: _DECIMAL,
    uuid.UUID: Kind("UUIDs", _always(pa.uuid()), _by(pa.uuid().equals)),
    list: _LIST,
    tuple: _LIST,
    dict: _STRUCT,
}
_QUICK = {cls: kind for cls in (bool, int, str) if (kind := _KINDS[cls]) is not None}
_NUMPY: Mapping[str, type] = {
    "bool": bool,
    "bool_": bool,
    "int64": int,
    "float64": float,
    "str_": str,
    "bytes_": bytes,
}
"""Numpy's classes whose values are Python's, to the bit: a column may have both."""
_PANDAS: Mapping[str, Kind | None] = {
    "Timestamp": _PANDAS_TIME,
    "Timedelta": _PANDAS_DURATION,
    "NaTType": None,
    "NAType": None,
}


_kinds_seen: dict[type, Kind | None] = {}


def _kind(cls: type, path: str) -> Kind | None:
    """Return the kind of the instances of *cls*; None for those that stand for nothing."""
    if cls not in _kinds_seen:
        _kinds_seen[cls] = _kind_of(cls, path)
    return _kinds_seen[cls]


def _kind_of(cls: type, path: str) -> Kind | None:
    module = cls.__module__.partition(".")[0]
    if module == "pandas" and cls.__name__ in _PANDAS:
        return _PANDAS[cls.__name__]
    for base in cls.__mro__:
        if base in _KINDS:
            return _KINDS[base]
        if base.__module__ == "numpy" and base.__name__ in _NUMPY:
            return _KINDS[_NUMPY[base.__name__]]
        if base.__module__ == "numpy" and base.__name__ == "generic":
            return Kind(f"numpy's {cls.__name__}", _numpy_type, _by(pa.types.is_null))
        if base.__module__ == "numpy" and base.__name__ == "ndarray":
            return _LIST
    raise SchemaError(f"column {path!r}: {cls.__name__} values, which Arrow has no type for")


def _named(kinds: Iterable[Kind]) -> str:
    return " and ".join(sorted(kind.name for kind in kinds))
