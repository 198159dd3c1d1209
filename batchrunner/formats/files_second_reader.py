"""Reads whole files for `verify`, in blocks, without code of the run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa

from batchrunner.formats.contract import Opener, TableReader
from batchrunner.shard import Slice

_BLOCK_BYTES = 1 << 20
_HELD_BYTES = 64 << 20


class FileReader(TableReader):
    """The second reader of whole files."""

    def count_part(self, file: Any, *, compression: str) -> int:
        raise ValueError("no part is written in the format files")

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        return 0 if after else 1

    def tables(
        self,
        file: Any,
        piece: Slice | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield the one row of the file. One that is too large to be held is a bad row, without bytes here."""
        if piece is None:
            raise ValueError("no part is written in the format files")
        arrays = {
            "path": pa.array([piece.uri]),
            "size": pa.array([piece.size], pa.int64()),
            "modified": pa.array([piece.modified], pa.int64()).cast(pa.timestamp("us", "UTC")),
        }
        if columns is None or "bytes" in columns:
            arrays["bytes"] = pa.array([_content(file, piece)], pa.binary())
        table = pa.table(
            {name: arrays[name] for name in ("path", "size", "bytes", "modified") if name in arrays}
        )
        yield (
            0,
            table
            if columns is None
            else table.select([n for n in table.column_names if n in columns]),
        )


def _content(file: Any, piece: Slice) -> bytes | None:
    if piece.size > _HELD_BYTES:
        return None
    return b"".join(iter(lambda: file.read(_BLOCK_BYTES), b""))
