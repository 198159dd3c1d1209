"""Writes tables as JSON lines by columns: the same bytes as rows give, with no Python step for each row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import orjson
import pyarrow as pa

from batchrunner.formats.json_texts import NotPlainError, Piece, joined, texts
from batchrunner.formats.line_tables import LineTable, line_table_of

_END = "}\n"


def write_table(table: pa.Table) -> bytes | None:
    """Return the rows of *table* as lines; None if they have to be written by rows.

    That is so for nested values, times and whatever JSON has no form for: the writer of rows says
    which row, and why.
    """
    names = table.column_names
    if not names or len(set(names)) < len(names):
        return None
    try:
        return b"".join(chain.from_iterable(map(_lines, table.to_batches())))
    except (NotPlainError, pa.ArrowException):
        return None


def _lines(batch: pa.RecordBatch) -> Iterator[pa.Buffer | bytes]:
    if not batch.num_rows:
        return
    if found := line_table_of(batch):
        yield from _longer_lines(batch, *found)
    else:
        yield joined([*_pieces(batch, 0), _END])


def _longer_lines(
    batch: pa.RecordBatch, read: LineTable, first: int
) -> Iterator[pa.Buffer | bytes]:
    """Yield the lines that the first columns of *batch* were read from, with the others added."""
    columns, stop = read.table.num_columns, first + batch.num_rows
    if batch.num_columns == columns:
        yield read.lines(first, stop)
        return
    # Each line without its end, and with that of the line before: so they lie without gaps.
    lines = joined([read.shifted(first, stop, by=len(_END)), *_pieces(batch, columns)])
    yield lines[len(_END) :] if first else lines
    yield _END.encode()


def _pieces(batch: pa.RecordBatch, start: int) -> Iterator[Piece]:
    """Yield the keys and values of the columns from number *start* on."""
    for number in range(start, batch.num_columns):
        name = orjson.dumps(batch.schema.field(number).name).decode()
        yield f"{',' if number else '{'}{name}:"
        yield from texts(batch.column(number))
