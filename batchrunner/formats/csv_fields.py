"""Splits records of CSV into fields: a megabyte at a time by Arrow, or one by one where that is not sure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.csv

from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.csv_records import RecordBlock, field_pattern
from batchrunner.formats.json_texts import is_text
from batchrunner.formats.lines import MARK, MAX_LINE_BYTES

Fields = list[str | None]
Faults = dict[int, str]
"""By number of the record: what is wrong with it."""


class FieldSplitter:
    """Splits records of one dialect. Safe in several threads."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect, self._nulls = dialect, frozenset(dialect.nulls)
        self._quote = dialect.quote.encode()
        self._field = re.compile(field_pattern(dialect))

    def table(
        self, block: RecordBlock, names: Sequence[str], columns: Sequence[str]
    ) -> tuple[pa.Table, Faults]:
        """Return the *columns* of the records of *block*, as strings, with null for a faulty record.

        No record of *block* is blank, unless there is one column.
        """
        # Arrow looks for UTF-8 only in the columns that it returns.
        is_sure = _is_sure(block) and (len(columns) == len(names) or is_text(block.data))
        table = self._by_arrow(block, names, columns) if is_sure else None
        return (table, {}) if table is not None else self._one_by_one(block, names, columns)

    def _by_arrow(
        self, block: RecordBlock, names: Sequence[str], columns: Sequence[str]
    ) -> pa.Table | None:
        """Return the table as Arrow reads it; None if it finds another number of records or fields."""
        csv, dialect, data = pyarrow.csv, self._dialect, block.data
        if not data.endswith(
            b"\n"
        ):  # an empty last field would else count as quoted like its neighbour
            data += b"\n"
        if data.startswith(MARK):  # here it is text, and Arrow leaves out one
            data = MARK + data
        try:
            table = csv.read_csv(
                pa.py_buffer(data),
                csv.ReadOptions(
                    use_threads=False, block_size=len(data) + 1, column_names=list(names)
                ),
                csv.ParseOptions(
                    delimiter=dialect.delimiter,
                    quote_char=dialect.quote or False,
                    newlines_in_values=True,
                    ignore_empty_lines=len(names) > 1,
                ),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    null_values=list(dialect.nulls),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    include_columns=list(columns),
                ),
            )
        except pa.ArrowException:  # a record with too few fields, or bytes that are no UTF-8
            return None
        return table if table.num_rows == len(block.ends) else None

    def _one_by_one(
        self, block: RecordBlock, names: Sequence[str], columns: Sequence[str]
    ) -> tuple[pa.Table, Faults]:
        rows, faults = [], Faults()
        nothing: Fields = [None] * len(names)
        for number, record in enumerate(records_of(block)):
            try:
                fields = self.fields(record)
                _check_count(fields, names)
                rows.append(fields)
            except ValueError as error:
                rows.append(nothing)
                faults[number] = str(error)
        every = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
        arrays = [pa.array(every.get(name, ()), pa.string()) for name in columns]
        return pa.table(arrays, names=list(columns)), faults

    def fields(self, record: bytes) -> Fields:
        """Return the fields of one record, which may have its line end; None for null.

        Raises:
            ValueError: The record is no UTF-8, has text behind a closing quote, or a lone line end.
        """
        if len(record) > MAX_LINE_BYTES:
            raise ValueError(too_long(len(record)))
        return list(self._split(record.removesuffix(b"\n").removesuffix(b"\r")))

    def _split(self, record: bytes) -> Iterator[str | None]:
        at = 0
        while at <= len(record):
            found = self._field.match(record, at)
            assert found is not None  # noqa: S101 - an empty field matches, too
            yield self._value(found)
            at = found.end() + 1

    def _value(self, found: re.Match[bytes]) -> str | None:
        raw = found[0]
        if self._quote and raw.startswith(self._quote):
            close = found["close"] or b""
            if close != self._quote:
                raise ValueError(
                    f"{_text(close[1:40])!r} follows a closing quote: a quote inside of a field stands "
                    "twice, and no backslash before it"
                )
            quote = self._quote.decode()
            return _text(raw[1:-1]).replace(quote * 2, quote)
        if b"\r" in raw:
            raise ValueError(
                r"a carriage return stands alone, outside of quotes: records end at \n or \r\n"
            )
        text = _text(raw)
        return None if text in self._nulls else text


def records_of(block: RecordBlock) -> Iterator[bytes]:
    """Yield the bytes of each record."""
    for start, end in zip(block.starts.tolist(), block.ends.tolist(), strict=True):
        yield block.data[start:end]


def too_long(length: int) -> str:
    """Return the reason why a record of *length* bytes is not read."""
    return f"the record has {length:,} bytes; at most {MAX_LINE_BYTES:,} are read: split it"


def _is_sure(block: RecordBlock) -> bool:
    """Return whether Arrow finds the same records: it takes quotes and lone returns more lightly."""
    data = block.data
    return (
        block.is_plain
        and len(data) <= MAX_LINE_BYTES
        and (b"\r" not in data or data.count(b"\r") == data.count(b"\r\n"))
    )


def _check_count(fields: Fields, names: Sequence[str]) -> None:
    if len(fields) != len(names):
        raise ValueError(f"{len(fields):,} fields, where the file has {len(names):,} columns")


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"it is no UTF-8 ({error.reason}): convert the file, such as by iconv -f LATIN1 -t UTF-8"
        ) from error
