"""Reads CSV for `verify`, with code that took no part in the run: the standard library's."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import Opener, RecordReader, Records, TableReader
from batchrunner.formats.csv_values_second_reader import column_of
from batchrunner.formats.jsonl_second_reader import BOM, uncompressed
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    import pyarrow as pa

_HELD_BYTES, _MOST_BYTES = 32 << 20, 16 << 20
_SOME = 1000
_BLANK = (b"\n", b"\r\n", b"\r")
_END = 1 << 62
Numbered = Iterator[tuple[int, bytes]]


class CsvAgain(RecordReader):
    """The second reader of CSV. A record is the header, after its length, and then the record."""

    reads_in_order = True

    def __init__(self, dialect: Any, types: pa.Schema | None = None) -> None:
        """Read files in *dialect*, whose columns have *types*; without, they are strings."""
        self._dialect, self._types = dialect, types

    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        file.seek(0)
        if compression:
            most = piece.stop if piece.slicing is Slicing.HEAD else _END
            lines = self._rows(uncompressed(file, compression), 0, _END)
            return _grouped(line for _, line in zip(range(most), lines, strict=False))
        start, stop = (min(wanted), max(wanted) + 1) if wanted else (piece.start, piece.stop)
        return _grouped(self._rows(file, start, stop))

    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        return _grouped(self._rows(uncompressed(file, compression), 0, _END))

    def _rows(self, file: Any, start: int, stop: int) -> Numbered:
        """Yield offset and record of the rows that begin in the range; a record begins at *start*."""
        stream = io.BufferedReader(_Raw(file), 1 << 20)
        at = len(BOM) if stream.peek(len(BOM))[: len(BOM)] == BOM else 0
        stream.read(at)
        header = b""
        if self._dialect.names is None:
            at, header = self._header(stream, at)
            if not header:
                return
        if start > at:
            file.seek(start)
            at, stream = start, io.BufferedReader(_Raw(file), 1 << 20)
        has_blanks = len(self._names(header)) == 1
        before = len(header).to_bytes(4, "little") + header
        for begin, record in _records(stream, self._dialect, at):
            if begin >= stop:
                return
            if has_blanks or record not in _BLANK:
                yield begin, before + record

    def _header(self, stream: Any, at: int) -> tuple[int, bytes]:
        for begin, record in _records(stream, self._dialect, at):
            if record not in _BLANK:
                return begin + len(record), record
        return at, b""

    def _names(self, header: bytes) -> Sequence[str]:
        if self._dialect.names is not None:
            return list(self._dialect.names)
        return [name or "" for name in _fields(header, self._dialect)]  # none is null

    def row_of(self, record: bytes) -> Row:
        header, raw = _halves(record)
        names = self._names(header)
        fields = _fields(raw, self._dialect, self._dialect.nulls)
        if len(fields) != len(names):
            raise ValueError(f"it has {len(fields)} fields, the header {len(names)}")
        values = map(self._value, names, fields)
        return dict(zip(names, values, strict=True))

    def _value(self, name: str, text: str | None) -> Any:
        if self._types is None or name not in self._types.names:
            return text
        field = self._types.field(name)
        if text is None and not field.nullable:
            raise ValueError(f"column {name!r}: null")
        return column_of([text], field.type)[0].as_py()

    def types_of(self, record: bytes) -> pa.Schema:
        import pyarrow as pa

        types = self._types or pa.schema([])
        names = self._names(_halves(record)[0])
        return pa.schema(
            (name, types.field(name).type if name in types.names else pa.string()) for name in names
        )

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        if not after or compression:
            return super().count_rows(piece, opened, compression=compression, after=after)
        with opened() as file:  # from where a record begins, which its end need not be
            return sum(at >= piece.stop for at, _ in self._rows(file, piece.start, _END))


class CsvPartAgain(TableReader):
    """The second reader of parts in CSV, whose types the run agreed on."""

    reads_in_order = True

    def __init__(self, dialect: Any, types: pa.Schema | None, compression: str) -> None:
        self._again = CsvAgain(dialect)
        self._types, self._compression = types, compression

    def count_part(self, file: Any, *, compression: str) -> int:
        return self._again.count_part(file, compression=compression)

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        return self._again.count_rows(piece, opened, compression=compression, after=after)

    def tables(
        self,
        file: Any,
        piece: Slice | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        first = 0
        for some in self._again.part_records(file, compression=self._compression):
            rows = [self._again.row_of(record) for _, record in some]
            names = [name for name in rows[0] if columns is None or name in columns]
            yield first, self._table(rows, names or list(rows[0])[:1])
            first += len(rows)

    def _table(self, rows: Sequence[Row], names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        types = self._types or pa.schema([])
        kinds = [types.field(n).type if n in types.names else pa.string() for n in names]
        columns = [
            column_of([row[n] for row in rows], k) for n, k in zip(names, kinds, strict=True)
        ]
        return pa.table(columns, names=list(names))


def _halves(record: bytes) -> tuple[bytes, bytes]:
    length = 4 + int.from_bytes(record[:4], "little")
    return record[4:length], record[length:]


def _records(stream: Any, dialect: Any, at: int) -> Numbered:
    """Yield offset and bytes of each record; of one that is too long, only its head."""
    record, begin, state = b"", at, "start"
    while line := stream.readline(_HELD_BYTES):
        at += len(line)
        if len(record) < _HELD_BYTES:
            record += line
        state = _state_after(line, state, dialect)
        if line.endswith(b"\n") and state != "quoted":
            yield begin, record
            record, begin, state = b"", at, "start"
    if state == "quoted":
        raise ValueError(f"the record at byte {begin:,} ends inside of quotes")
    if record:
        yield begin, record


def _state_after(line: bytes, state: str, dialect: Any) -> str:
    """Return where a record is behind *line*: in a "quoted" field, in "text", or at a field's "start"."""
    quote, delimiter = dialect.quote.encode(), dialect.delimiter.encode()
    if not quote or (state != "quoted" and quote not in line):
        return "text"
    at = 0
    while True:
        if state == "start" and line[at : at + 1] == quote:
            state, at = "quoted", at + 1
        if state == "quoted":
            at = line.find(quote, at)
            while at >= 0 and line[at + 1 : at + 2] == quote:
                at = line.find(quote, at + 2)
            if at < 0:
                return state
        at = line.find(delimiter, at) + 1
        if not at:
            return "text"
        state = "start"


def _fields(record: bytes, dialect: Any, nulls: Collection[str] = ()) -> list[str | None]:
    """Return the fields of *record* as the standard library splits them; None for those of *nulls*.

    Raises:
        ValueError: It is no record.
    """
    if len(record) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    text = record.removesuffix(b"\n").removesuffix(b"\r").decode()
    csv.field_size_limit(max(csv.field_size_limit(), _HELD_BYTES))  # the default is 128 KiB
    quoting: Mapping[str, Any] = {"quotechar": dialect.quote, "doublequote": True}
    if not dialect.quote:
        quoting = {"quoting": csv.QUOTE_NONE}
    try:
        rows = list(csv.reader([text], delimiter=dialect.delimiter, strict=True, **quoting))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    (values,) = rows or [[""]]
    return _with_nulls(values or [""], text, dialect.quote, nulls)


def _with_nulls(
    values: Sequence[str], text: str, quote: str, nulls: Collection[str]
) -> list[str | None]:
    """Return *values*, with None for one of *nulls* that has no quotes in *text*.

    Checks that the values with their quotes and delimiters have the length of *text*.
    """
    at, fields = 0, list[str | None]()
    for value in values:
        is_quoted = bool(quote) and text.startswith(quote, at)
        at += len(value) + (value.count(quote) + 2 if is_quoted else 0) + 1
        fields.append(None if not is_quoted and value in nulls else value)
    if at != len(text) + 1:
        raise ValueError("its fields do not make up the record")
    return fields


def _grouped(records: Numbered) -> Iterator[Records]:
    some: Records = []
    for record in records:
        some.append(record)
        if len(some) == _SOME:
            yield some
            some = []
    if some:
        yield some


class _Raw(io.RawIOBase):
    """Reads from *stream*, which stays open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
