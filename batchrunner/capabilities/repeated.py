"""Finds what stands more than once in files of JSON lines, in little memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from batchrunner.formats.json_rows import parse_line
from batchrunner.formats.partitions import glob_root
from batchrunner.storage.keys import is_hidden


def repeated_values(uris: str | Sequence[str], *, field: str) -> frozenset[str]:
    """Return the texts that *field* has in several lines of the files at *uris*.

    Reads the files once, with 8 bytes of memory for each line, and once more if there is any. Lines
    that cannot be read are passed over: the reader makes dead letters of them. So are files that no
    source reads, as their name or a folder's begins with "." or "_".

    Args:
        uris: Paths or URIs of files, of folders, or with `*`; what fsspec knows.
        field: A field of each line.

    Raises:
        FileNotFoundError: One of *uris* names no file.
    """
    import numpy as np

    uris = (uris,) if isinstance(uris, str) else tuple(uris)
    hashes = np.fromiter(map(_hash, _values(uris, field)), dtype=np.uint64)
    hashes.sort()
    twice = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return frozenset()
    counts = Counter(_readable(uris, field, twice))
    return frozenset(value for value, count in counts.items() if count > 1)


def _hash(value: str) -> int:
    return xxh3_64_intdigest(value.encode("utf-8", "surrogatepass"))


def _values(uris: Sequence[str], field: str) -> Iterator[str]:
    for line in _lines(uris):
        if (value := _text(_json(line), field)) is not None:
            yield value


def _readable(uris: Sequence[str], field: str, hashes: frozenset[int]) -> Iterator[str]:
    """Yield the values of *hashes* again, as a source reads them: from no line that it cannot read."""
    for line in _lines(uris):
        value = _text(_json(line), field)
        if value is not None and _hash(value) in hashes:
            with suppress(ValueError):
                yield parse_line(line)[field]


def _text(row: Any, field: str) -> str | None:
    value = row.get(field) if isinstance(row, dict) else None
    return value if isinstance(value, str) else None


def _lines(uris: Sequence[str]) -> Iterator[bytes]:
    from fsspec.core import url_to_fs

    for uri in uris:
        storage, path = url_to_fs(uri)
        root = glob_root(path)
        found = storage.find(path, detail=True) if root == path else storage.glob(path, detail=True)
        files = [name for name, info in found.items() if info["type"] != "directory"]
        names = [name for name in files if not is_hidden(name.removeprefix(root))]
        if not names:
            raise FileNotFoundError(f"{uri}: there is no such file")
        for name in names:
            with storage.open(name, "rb", compression="infer") as file:
                yield from file


def _json(line: bytes) -> Any:
    """Return what stands in *line*, quickly: of a key that stands twice, the last value."""
    for loads in (orjson.loads, json.loads):  # the second knows half a surrogate pair
        with suppress(ValueError, RecursionError):
            return loads(line)
    return None
