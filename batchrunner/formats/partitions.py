"""Partition columns, which the folders of a file name: `date=2026-01-01/`, as Hive writes them.

A row that has such a column itself keeps its own value if that agrees with the folder's. If not, the
row is in the wrong folder or has the wrong value. Which of the two cannot be decided here, so it is a
bad row. A row without the column, or with null in it, gets the folder's value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.chunk import Row

if TYPE_CHECKING:
    import pyarrow as pa

Partition = tuple[tuple[str, str | None], ...]
"""Names and values of partition columns, outermost folder first."""

_NULL = "__HIVE_DEFAULT_PARTITION__"
_MAGIC = re.compile(r"[*?\[]")


def glob_root(uri: str) -> str:
    """Return the folder in *uri* before its first wildcard; *uri* itself without one."""
    if not _MAGIC.search(uri):
        return uri
    segments = uri.split("/")
    first = next(i for i, segment in enumerate(segments) if _MAGIC.search(segment))
    return "/".join(segments[:first]) or "/"


@lru_cache(maxsize=256)
def partition_columns(uri: str, roots: tuple[str, ...]) -> Partition:
    """Return the columns that the folders of the file at *uri* name: `date=2026-01-01/`.

    Folders count from the outermost of *roots* that *uri* lies in, and from the `k=v` folders
    right above that root: so rows have the same columns whether the source is a table, one of its
    partitions or a file in it. Names and values are percent-decoded text;
    `__HIVE_DEFAULT_PARTITION__` is None.

    Args:
        uri: The absolute URI of a source file.
        roots: The URIs of the source, as in the spec; globs too.

    Raises:
        InvalidSpecError: Two folders name the same column.
    """
    if "=" not in uri:  # true of most files, and a source may have 100,000
        return ()
    columns = [column for column in map(_column, _folders(uri, roots)) if column]
    names = [name for name, _ in columns]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidSpecError(
            f"{uri}: its folders name the partition column {twice[0]!r} twice; rename one of them, "
            "or set source.partitioning: none"
        )
    return tuple(columns)


def _folders(uri: str, roots: Iterable[str]) -> list[str]:
    folders = uri.split("/")[:-1]
    start = min((_depth(root) for root in _above(uri, roots)), default=len(folders))
    start = min(start, len(folders))  # a root that is the file itself
    while start and _column(folders[start - 1]):
        start -= 1
    return folders[start:]


def _above(uri: str, roots: Iterable[str]) -> Iterator[str]:
    for root in roots:
        if root == uri:  # also when its name looks like a glob
            yield root
        elif uri.startswith((folder := glob_root(root).rstrip("/")) + "/"):
            yield folder


def _depth(root: str) -> int:
    return len(root.split("/"))


def _column(segment: str) -> tuple[str, str | None] | None:
    name, equals, value = segment.partition("=")
    if not equals or not name:
        return None
    return _decoded(name), None if value == _NULL else _decoded(value)


def _decoded(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:  # no percent-encoded text: the name as it is
        return text


def wanted(partition: Partition, columns: tuple[str, ...] | None) -> Partition:
    """Return the columns of *partition* that are in *columns*; all of them if *columns* is None."""
    return tuple(item for item in partition if columns is None or item[0] in columns)


def add_to_rows(rows: Sequence[Row], partition: Partition) -> dict[int, str]:
    """Add *partition* to *rows*, in place; return, by number, how a row contradicts it."""
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
    if isinstance(own, bytes):
        return own == value.encode()
    if isinstance(own, bool):
        return json.dumps(own) == value.lower()
    try:
        return isinstance(own, int | float) and type(own)(value) == own
    except ValueError:
        return False


def contradicting_rows(table: pa.Table, partition: Partition) -> dict[int, str]:
    """Return, by row number, how a row of *table* contradicts *partition*."""
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
        other = pc.fill_null(pc.not_equal(_plain(column), _plain(typed)[0]), fill_value=False)
    numbers: list[int] = pc.indices_nonzero(other).to_pylist()
    return numbers


def add_to_table(table: pa.Table, partition: Partition) -> pa.Table:
    """Return *table* with the columns of *partition*, new ones last. No row may contradict them."""
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


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    import pyarrow as pa

    type_ = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    return values.cast(pa.string() if pa.types.is_null(type_) else type_)


def _contradiction(name: str, own: str, value: str | None) -> str:
    return (
        f"column {name!r} is {own[:100]}, but the folder of the file says {value!r}; mend one of "
        "them, leave the column out with source.columns, or set source.partitioning: none"
    )
