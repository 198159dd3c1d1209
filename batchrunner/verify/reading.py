"""Rows of source files and of parts, read by code that took no part in the run.

Lines are cut and numbered here and parsed by the standard library; tables are cut by the row numbers
of the footer. Whatever the worker's readers believe, `--key` and `--replay` see what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from batchrunner.formats.naming import PARQUET, FileKind, file_kind
from batchrunner.formats.partitions import partition_columns
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate
from batchrunner.verify.counting import BOM, blocks, line_start, uncompressed

if TYPE_CHECKING:
    import pyarrow as pa

Numbered = list[tuple[int, bytes]]
"""Lines with text, each with the offset of its first byte in the uncompressed file."""

Numbers = frozenset[int]
"""Where rows stand: offsets of lines, or numbers of Parquet rows."""

Folders = Mapping[str, str | None]
"""Columns that the folders of a file name, such as `date=2026-01-01/`."""

ROWS_AT_ONCE = 16_384
_HELD_BYTES, _KEPT_BYTES = 32 << 20, 4096


def numbered_lines(stream: Any, *, at: int) -> Iterator[Numbered]:
    """Yield the lines of *stream*, whose next byte is number *at* of its file.

    A line too long to be held is cut: it was set aside, or is no row for us either.
    """
    held, lost = b"", 0
    for block in blocks(stream):
        if at == 0 and not held and block.startswith(BOM):
            at, block = len(BOM), block[len(BOM) :]  # noqa: PLW2901 - the mark is no text
        *whole, held = (held + block).split(b"\n")
        if whole:
            lengths = [len(line) + 1 for line in whole]
            lengths[0] += lost
            *starts, at = accumulate(lengths, initial=at)
            lost = 0
            yield [item for item in zip(starts, whole, strict=True) if item[1].strip()]
        if len(held) > _HELD_BYTES:
            lost, held = lost + len(held) - _KEPT_BYTES, held[:_KEPT_BYTES]
    if held.strip():
        yield [(at, held)]


def row_of(line: bytes) -> dict[str, Any]:
    """Return the row of a line, by the standard library.

    Raises:
        ValueError: It is no JSON object.
    """
    try:
        row = json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}, not an object")  # noqa: TRY004 - bad data
    return row


def position_of(dead_letter: bytes) -> int:
    """Return where the row of a dead letter stands."""
    return int(row_of(dead_letter)["at"])


class SourceReader:
    """Reads what shards were cut from; every file must be as it was when the shard was planned.

    All methods may raise ObjectChangedError or ObjectNotFoundError: the file is not that one.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source

    def is_parquet(self, shard: Shard) -> bool:
        """Tell whether the rows of *shard* are read as tables."""
        return self._kind(shard).format == PARQUET

    def lines(self, shard: Shard, *, wanted: Numbers | None) -> Iterator[Numbered]:
        """Yield the lines with text of *shard*; of one of dead letters, those that are *wanted*."""
        if wanted is not None and not wanted:
            return
        with self._open(shard) as file:
            for some in self._in_slice(file, shard, wanted):
                yield some if wanted is None else [item for item in some if item[0] in wanted]

    def _in_slice(self, file: Any, shard: Shard, wanted: Numbers | None) -> Iterator[Numbered]:
        compression = self._kind(shard).compression
        if shard.slicing is Slicing.BYTES or (wanted and not compression):
            return _between(file, *_byte_span(shard, wanted))
        lines = numbered_lines(uncompressed(file, compression), at=0)
        return _first(lines, shard.stop) if shard.slicing is Slicing.HEAD else lines

    def tables(
        self, shard: Shard, *, wanted: Numbers | None, columns: Sequence[str] | None
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yield the rows of *shard*, each table with the number of its first row in the file.

        Of a shard of dead letters: neighbours of the rows that are *wanted* come with them.
        Of *columns*, those that the file or its folders have.
        """
        if wanted is not None and not wanted:
            return
        folders = self.folders(shard, columns=columns)
        with self._open(shard) as file:
            tables = tables_in(file, columns, span=lambda ends: _row_span(shard, wanted, ends))
            for first, table in tables:
                yield first, _only(_with_folders(table, folders), columns)

    def folders(self, shard: Shard, *, columns: Sequence[str] | None) -> Folders:
        """Return what the folders of the file of *shard* say; of *columns*, or all."""
        if self._source.partitioning == "none":
            return {}
        found = partition_columns(shard.uri, self._source.uris)
        return {name: text for name, text in found if columns is None or name in columns}

    def _kind(self, shard: Shard) -> FileKind:
        return file_kind(shard.uri, format=self._source.format) or FileKind("jsonl")

    def _open(self, shard: Shard) -> Any:
        storage, key = locate(shard.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, shard.size, shard.identity))


def with_folders(row: dict[str, Any], folders: Folders) -> dict[str, Any]:
    """Return *row* with what the folders of its file say, where it does not say anything itself."""
    said = {name: value for name, value in row.items() if value is not None}
    return {**row, **folders, **said} if folders else row


def _with_folders(table: pa.Table, folders: Folders) -> pa.Table:
    import pyarrow as pa

    for name, value in folders.items():
        text = pa.repeat(pa.scalar(value, pa.string()), len(table))
        if name not in table.column_names:
            table = table.append_column(name, text)
        elif table.column(name).null_count:
            at = table.column_names.index(name)
            table = table.set_column(at, name, text.cast(table.column(name).type))
    return table


def _only(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Return *table* without what Arrow takes for a part of the *columns*, or came uncalled for."""
    kept = [name for name in table.column_names if columns is None or name in columns]
    return table.select(kept) if kept else table


def _byte_span(shard: Shard, wanted: Numbers | None) -> tuple[int, int]:
    if not wanted:
        return shard.start, shard.stop
    first = min(wanted)
    return (first if first > len(BOM) else 0), max(wanted) + 1


def _between(file: Any, start: int, stop: int) -> Iterator[Numbered]:
    """Yield the lines whose first byte lies in [*start*, *stop*) of seekable *file*."""
    at = line_start(file, start)
    file.seek(at)
    if at >= stop:
        return
    for some in numbered_lines(file, at=at):
        inside = [item for item in some if item[0] < stop]
        yield inside
        if len(inside) < len(some):
            return


def _first(lines: Iterator[Numbered], most: int) -> Iterator[Numbered]:
    for some in lines:
        yield some[:most]
        most -= len(some)
        if most <= 0:
            return


def tables_in(
    file: Any,
    columns: Sequence[str] | None = None,
    *,
    span: Callable[[list[int]], tuple[int, int]] = lambda ends: (0, ends[-1]),
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a Parquet file, each table with the number of its first row.

    Args:
        file: Open for reading.
        columns: Those to decode, if the file has them; by default, all.
        span: Given 0 and the number of the row after each row group, returns the first row and the
            one after the last.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
    ends = _group_ends(source.metadata)
    first, stop = span(ends)
    groups = [n for n in range(len(ends) - 1) if ends[n] < stop and ends[n + 1] > first]
    names = source.schema_arrow.names
    # Without a column there are no rows to count either, so then one comes uncalled for.
    kept = None if columns is None else [name for name in columns if name in names] or names[:1]
    at = ends[groups[0]] if groups else 0
    for batch in source.iter_batches(ROWS_AT_ONCE, groups, kept, use_threads=False):
        begin, end = max(first - at, 0), min(stop - at, batch.num_rows)
        if begin < end:
            yield at + begin, pa.Table.from_batches([batch]).slice(begin, end - begin)
        at += batch.num_rows


def _group_ends(footer: Any) -> list[int]:
    sizes = (footer.row_group(n).num_rows for n in range(footer.num_row_groups))
    return list(accumulate(sizes, initial=0))


def _row_span(shard: Shard, wanted: Numbers | None, ends: Sequence[int]) -> tuple[int, int]:
    if wanted:
        return min(wanted), max(wanted) + 1
    if shard.slicing is Slicing.FILE:
        return 0, ends[-1]
    if shard.slicing is Slicing.ROW_GROUPS:
        return ends[min(shard.start, len(ends) - 1)], ends[min(shard.stop, len(ends) - 1)]
    return shard.start, min(shard.stop, ends[-1])
