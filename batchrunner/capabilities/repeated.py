"""Finds what stands more than once in files of JSON lines, in little memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

_MAGIC = frozenset("*?[")


def repeated_values(uris: str | Sequence[str], *, field: str) -> frozenset[str]:
    """Return the texts that *field* has in several lines of the files at *uris*.

    Reads the files once, with 8 bytes of memory for each line, and once more if there is any. Lines
    that cannot be read are passed over: the reader makes dead letters of them.

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
    counts = Counter(value for value in _values(uris, field) if _hash(value) in twice)
    return frozenset(value for value, count in counts.items() if count > 1)


def _hash(value: str) -> int:
    return xxh3_64_intdigest(value.encode("utf-8", "surrogatepass"))


def _values(uris: Sequence[str], field: str) -> Iterator[str]:
    for line in _lines(uris):
        row = _json(line)
        value = row.get(field) if isinstance(row, dict) else None
        if isinstance(value, str):
            yield value


def _lines(uris: Sequence[str]) -> Iterator[bytes]:
    from fsspec.core import url_to_fs

    for uri in uris:
        storage, path = url_to_fs(uri)
        names = storage.glob(path) if set(path) & _MAGIC else storage.find(path)
        if not names:
            raise FileNotFoundError(f"{uri}: there is no such file")
        for name in names:
            with storage.open(name, "rb", compression="infer") as file:
                yield from file


def _json(line: bytes) -> Any:
    for loads in (orjson.loads, json.loads):  # the second knows half a surrogate pair
        try:
            return loads(line)
        except ValueError:
            continue
    return None
