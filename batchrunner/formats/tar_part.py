"""Writes samples as members of a tar: a member for each column, with bytes that depend on the rows alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from batchrunner.formats.chunk import MAX_ROW_BYTES, Row
from batchrunner.formats.compression import RowPart
from batchrunner.formats.tar_members import is_data, key_and_extension, samples

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_KEY = "__key__"


def encode_samples(rows: Sequence[Row]) -> bytes:
    """Return the members of *rows*, each of which has a `__key__` and bytes in all other columns.

    Raises:
        ValueError: A row would not be read back as it is.
    """
    encoded = list(map(_encoded, rows))
    for before, after in pairwise(rows):
        _check_apart(before[_KEY], after[_KEY])
    return b"".join(encoded)


def _encoded(row: Row) -> bytes:
    key = row.get(_KEY)
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 - a row that the format cannot hold
            f"a sample needs a {_KEY}, a string with which the names of its members begin; this row has {key!r}"
        )
    columns = [(name, value) for name, value in row.items() if name != _KEY]
    if not columns:
        raise ValueError(f"the row {key!r} has no column beside {_KEY}, and would be no sample")
    _check_size(columns)
    return b"".join(_member(key, name, value) for name, value in columns)


def _check_size(columns: Sequence[tuple[str, Any]]) -> None:
    for name, value in columns:
        if not isinstance(value, bytes):
            raise ValueError(  # noqa: TRY004 - a row that the format cannot hold
                f"the value of {name!r} is of type {type(value).__name__}, and a tar holds bytes: convert it, "
                "or use sink.format: parquet"
            )
    if (size := sum(len(value) for _, value in columns)) > MAX_ROW_BYTES:
        raise ValueError(f"the sample has {size:,} bytes; at most {MAX_ROW_BYTES:,} are read back")


def _member(key: str, name: str, value: bytes) -> bytes:
    info = tarfile.TarInfo(f"{key}.{name}")
    is_kept = key_and_extension(info.name) == (key, name) and is_data(info)
    if not is_kept or not name or "\0" in info.name:
        raise ValueError(
            f"a member {info.name!r} would not be read back as the column {name!r} of {key!r}: a column is "
            f"lower case without '/', and the last part of a {_KEY} has no dot and does not begin with one"
        )
    info.name.encode()  # a UnicodeEncodeError is a ValueError
    info.size = len(value)
    return info.tobuf(tarfile.PAX_FORMAT) + value + bytes(-len(value) % _BLOCK)


class TarPart(RowPart):
    """Writes one part. Rows of one key must not stand next to each other: they would be one sample."""

    def __init__(self, file: io.RawIOBase, *, compression: str) -> None:
        super().__init__(file, compression=compression)
        self._last_key: str | None = None

    def append(self, rows: bytes) -> None:
        if self._last_key is not None:
            _check_apart(self._last_key, _first_key(rows))
        self._last_key = _first_key(rows[_last_member(rows) :])
        super().append(rows)

    def close(self) -> None:
        super().append(_END)
        super().close()


def _check_apart(before: str, after: str) -> None:
    if before == after:
        raise ValueError(
            f"two rows with the {_KEY} {after!r} follow each other, and would be read as one sample: give "
            "each row a key of its own"
        )


def _first_key(rows: bytes) -> str:
    return next(samples(io.BytesIO(rows + _END), skips=True)).key


def _last_member(rows: bytes) -> int:
    """Return the offset of the first header of the last member."""
    at = begin = 0
    while at < len(rows):
        begin = at
        if rows[at + 156 : at + 157] == tarfile.XHDTYPE:
            at = _after(rows, at)
        at = _after(rows, at)
    return begin


def _after(rows: bytes, at: int) -> int:
    size = int(rows[at + 124 : at + 135], 8)
    return at + _BLOCK + -(-size // _BLOCK) * _BLOCK
