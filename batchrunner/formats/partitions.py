"""Columns that stand in the names of folders, as Hive and those after it write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import unquote

from batchrunner.errors import InvalidSpecError

Partition = tuple[tuple[str, str | None], ...]
"""Names and values of partition columns, outermost folder first."""

_NULL = "__HIVE_DEFAULT_PARTITION__"
_MAGIC = re.compile(r"[*?\[]")


def glob_root(uri: str) -> str:
    """Return the folder that *uri* starts at: what stands before its first wildcard."""
    if not _MAGIC.search(uri):
        return uri
    segments = uri.split("/")
    first = next(i for i, segment in enumerate(segments) if _MAGIC.search(segment))
    return "/".join(segments[:first]) or "/"


@lru_cache(maxsize=256)
def partition_columns(uri: str, roots: tuple[str, ...]) -> Partition:
    """Return the columns that the folders of the file at *uri* name: `date=2026-01-01/`.

    Folders count from the outermost of *roots* that *uri* lies in, and from the `k=v` folders
    right above that root: whether a table, one of its partitions or a file in it is named, the
    columns of a row are the same. Values are text, percent-decoded; names are too.
    `__HIVE_DEFAULT_PARTITION__` is None.

    Args:
        uri: Of a file of the source, absolute.
        roots: The URIs of the source, as in the spec; globs too.

    Raises:
        InvalidSpecError: Two folders name the same column.
    """
    if "=" not in uri:  # as most have none, and a source may have 100,000 files
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
    except UnicodeDecodeError:  # it was no encoding of a text: the name as it stands
        return text
