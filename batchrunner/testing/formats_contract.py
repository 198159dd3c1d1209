"""Tests for any `Format`: subclass `FormatContract` and give it a format.

    class TestMyFormat(FormatContract):
        format = MyFormat()
        bad_record = b"..."                 # bytes of a record that holds no row, if there can be one

The format's own writer makes the files, so also test your format on files of other programs. For a
format that is `SourceOnly`, override `file_of`, and `with_pieces` if it has a `bad_record`.
"""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, ClassVar

import pytest

from batchrunner.errors import ShardFailedError
from batchrunner.formats import registry
from batchrunner.formats.chunk import Chunk, Row
from batchrunner.formats.contract import Cut, Format, RecordReader, RowFormat, Sharding
from batchrunner.formats.format_error import fault_of_cut
from batchrunner.shard import Slice, Slicing

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    0.1,
    -0.0,
    1.0,
    1e300,
    5e-324,
    "",
    "ä€𝄞",
    "\x00",
    'a\n"b"\\ \u2028',
    "null",
    [1, None, 3],
    [[], ["x"]],
    {"a": 1, "b": {"c": [None, "d"]}},
)
"""Edge cases of Python's plain values: a format keeps each exactly, or refuses it."""

SHARDINGS = (
    Sharding("files", 1),
    *(Sharding("rows", count) for count in (1, 3, 7, 100)),
    *(Sharding("bytes", count) for count in (1, 50, 333, 10_000)),
)


class FormatContract:
    """The tests. They need no storage and no run.

    Attributes:
        format: The format to test.
        values: Values that a row of the format can hold.
        bad_record: Bytes of a record that is not a row and damages no other record; None if no such
            bytes exist, as in a format whose files cannot be joined from pieces.
        blank: Bytes that may stand between two rows and are not a row; empty if there are none.
        shows_its_end: Whether a file that lost its last bytes shows it, if it is not compressed. Text does
            not: its last line may lack its end.
        most_held: About the most bytes that a chunk may have; the test reads a file of 30 MB.
    """

    format: ClassVar[Format]
    values: ClassVar[Sequence[Any]] = VALUES
    bad_record: ClassVar[bytes | None] = None
    blank: ClassVar[bytes] = b""
    shows_its_end: ClassVar[bool] = True
    most_held: ClassVar[int] = 16 << 20

    def __init_subclass__(cls) -> None:
        """Take out the tests of what the format does not have: they would show nothing."""
        applicable = _applicable(cls) if hasattr(cls, "format") else {}
        for name in applicable.keys() - vars(cls).keys():
            if not applicable[name]:
                setattr(cls, name, None)
            elif getattr(cls, name) is None:  # the class that this one is made of did not have it
                setattr(cls, name, vars(FormatContract)[name])

    @pytest.fixture(params=[None])
    def outer(self, request: pytest.FixtureRequest) -> str | None:
        """Return the compression of a whole file.

        Override it with the params None and all of `Format.outer`.
        """
        return request.param  # type: ignore[no-any-return]  # one of the params

    def some_rows(self, count: int) -> list[dict[str, Any]]:
        """Return *count* different rows with an `id`, and a `text` that begins with "row ".

        Override this method if the format cannot hold a number.
        """
        return [{"id": n, "text": f"row {n} {'x' * (n % 13)}"} for n in range(count)]

    # Helpers

    def file_of(self, rows: Sequence[Row], *, compression: str = "none") -> bytes:
        """Return the bytes of a part that was made by appending *rows* in three batches."""
        out = io.BytesIO()
        is_written = compression in self.format.compressions
        writer = self.format.writer(
            out,  # type: ignore[arg-type]  # it is written like one
            compression=compression if is_written else "none",
            settle=lambda schema: schema,
            restart=_no_restart,
        )
        third = len(rows) // 3
        for some in (rows[:third], rows[third : 2 * third], rows[2 * third :]):
            if some:
                writer.append(self._ready(some))
        with _kept_open(out):
            writer.close()
        return out.getvalue() if is_written else packed(out.getvalue(), compression)

    def _ready(self, rows: Sequence[Row]) -> Any:
        if isinstance(self.format, RowFormat):
            return self.format.encode(rows)
        from batchrunner.formats.columns import rows_to_table

        return rows_to_table(rows)

    def with_pieces(self, *pieces: Sequence[Row] | bytes, outer: str | None = None) -> bytes:
        """Return a file of a `RowFormat`: *pieces*, each rows or raw bytes, one after another."""
        assert isinstance(self.format, RowFormat)
        encode = self.format.encode
        data = b"".join(one if isinstance(one, bytes) else encode(one) for one in pieces)
        return packed(data, outer)

    def cut(
        self,
        data: bytes,
        outer: str | None,
        *,
        sharding: Sharding = SHARDINGS[0],
        limit: int | None = None,
    ) -> list[Slice]:
        """Return the slices of the file with the bytes *data*."""
        cuts = self.format.cut(
            len(data),
            compression=outer,
            sharding=sharding,
            limit=limit,
            opened=lambda: io.BytesIO(data),
        )
        assert not fault_of_cut(cuts)
        return [_slice(cut, size=len(data)) for cut in cuts]

    def chunks(
        self,
        file: bytes | BinaryIO,
        piece: Slice,
        outer: str | None,
        *,
        columns: tuple[str, ...] | None = None,
        partition: tuple[tuple[str, str | None], ...] = (),
    ) -> Iterator[Chunk]:
        """Return the chunks that the format reads from a slice."""
        return self.format.read(
            io.BytesIO(file) if isinstance(file, bytes) else file,
            piece,
            compression=outer,
            columns=columns,
            partition=partition,
        )

    def read(self, data: bytes, piece: Slice, outer: str | None = None, **how: Any) -> list[Row]:
        """Return the rows that the format reads from a slice, None for a bad one."""
        return [row for _, row in self.placed(data, piece, outer, **how)]

    def placed(
        self, data: bytes, piece: Slice, outer: str | None = None, **how: Any
    ) -> list[tuple[int, Any]]:
        """Return position and value of each row of a slice, in file order; None for a bad row."""
        found: list[tuple[int, Any]] = []
        for chunk in self.chunks(data, piece, outer, **how):
            found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
            found += [(row.position.at, None) for row in chunk.bad]
        return sorted(found, key=lambda item: item[0])

    def whole(self, data: bytes) -> Slice:
        """Return the single slice of an uncut file."""
        (piece,) = self.cut(data, None)
        return piece

    # What a source must do

    @pytest.mark.parametrize("sharding", SHARDINGS, ids=str)
    def test_every_row_is_in_exactly_one_slice(self, outer: str | None, sharding: Sharding) -> None:
        """No row is lost or doubled, however the file is cut."""
        rows = self.some_rows(30)
        data = self.file_of(rows, compression=outer or "none")
        slices = self.cut(data, outer, sharding=sharding)

        assert [row for one in slices for row in self.read(data, one, outer)] == rows
        assert all(one.rows in (None, len(self.read(data, one, outer))) for one in slices)

    @pytest.mark.parametrize("sharding", SHARDINGS, ids=str)
    def test_a_limit_keeps_the_first_rows(self, outer: str | None, sharding: Sharding) -> None:
        """Each slice has its row count, from which the driver computes the next file's limit."""
        rows = self.some_rows(30)
        data = self.file_of(rows, compression=outer or "none")
        for limit in (1, 7, 30, 99):
            slices = self.cut(data, outer, sharding=sharding, limit=limit)
            found = [self.read(data, one, outer) for one in slices]

            assert [row for some in found for row in some] == rows[:limit], limit
            assert [one.rows for one in slices] == [len(some) for some in found], limit

    def test_rows_read_by_position_are_the_rows_read_in_sequence(self, outer: str | None) -> None:
        """`retry --rows` finds a row again in another process and another year."""
        data = self.file_of(self.some_rows(30), compression=outer or "none")
        (piece,) = self.cut(data, outer)
        placed = self.placed(data, piece, outer)

        assert len(dict(placed)) == 30
        for picked in (placed[:1], placed[-1:], placed[4:5], placed[3:20:4], placed):
            span = self.format.span(piece, [at for at, _ in picked], compression=outer)
            again = dict(self.placed(data, span, outer))
            assert [(at, again[at]) for at, _ in picked] == picked

    def test_the_slices_of_a_file_give_the_positions_of_the_file(self) -> None:
        """Positions count from the start of the file, not of the slice."""
        data = self.file_of(self.some_rows(30))
        slices = self.cut(data, None, sharding=Sharding("rows", 7))

        assert [item for one in slices for item in self.placed(data, one)] == self.placed(
            data, self.whole(data)
        )

    def test_rows_can_be_had_again_as_they_were(self) -> None:
        """A capability may change the rows that it gets before it fails."""
        rows = self.some_rows(5)
        data = self.file_of(rows)
        for chunk in self.chunks(data, self.whole(data), None):
            for row in chunk.rows(0, len(chunk)):
                row.clear()
            assert chunk.reread(0, len(chunk)) == rows
            assert chunk.locate(3).at == chunk.positions()[3]
            assert self.shown_of(rows[3]) in chunk.locate(3).raw

    def shown_of(self, row: Row) -> bytes:
        """Return something of *row* that its dead letter shows."""
        return str(row["id"]).encode()

    def test_rows_come_as_tables_too(self) -> None:
        """`batch_format: pyarrow`, for one, needs tables."""
        rows = self.some_rows(5)
        data = self.file_of(rows)
        for chunk in self.chunks(data, self.whole(data), None):
            made = [chunk.table(one.start, one.stop).to_pylist() for one in chunk.segments()]
            assert [row for some in made for row in some] == rows

    def test_tables_are_the_same_where_no_rows_are_asked_for(self) -> None:
        """What `read_by_columns` saves is time, and no output depends on it."""
        data = self.file_of(self.some_rows(50))
        found = [
            [
                (chunk.positions(), chunk.bad, *_tables(chunk), chunk.reread(0, len(chunk)))
                for chunk in read(
                    io.BytesIO(data),
                    self.whole(data),
                    compression=None,
                    columns=None,
                    partition=(),
                )
            ]
            for read in (self.format.read, self.format.read_by_columns)
        ]

        assert found[1] == found[0]

    def test_only_the_columns_that_are_asked_for_are_read(self) -> None:
        """This makes `source.columns` save work."""
        data = self.file_of(self.some_rows(5))

        assert self.read(data, self.whole(data), columns=("text",)) == [
            {"text": row["text"]} for row in self.some_rows(5)
        ]

    def test_the_folders_of_a_file_add_columns(self) -> None:
        """A row whose own value differs from that of its folder is a bad row."""
        data = self.file_of(self.some_rows(3))
        piece = self.whole(data)

        assert [row["day"] for row in self.read(data, piece, partition=(("day", "1"),))] == [
            "1"
        ] * 3
        text = self.some_rows(3)[1]["text"]
        own = (("text", text.decode() if isinstance(text, bytes) else text),)
        assert [row for _, row in self.placed(data, piece, partition=own)] == [
            None,
            self.some_rows(3)[1],
            None,
        ]

    def test_a_bad_record_costs_one_row(self, outer: str | None) -> None:
        """The rows around it are read and counted."""
        assert self.bad_record is not None
        rows = self.some_rows(9)
        data = self.with_pieces(rows[:4], self.bad_record, rows[4:], outer=outer)
        (piece,) = self.cut(data, outer)

        assert [row for _, row in self.placed(data, piece, outer)] == [*rows[:4], None, *rows[4:]]
        (bad,) = [bad for chunk in self.chunks(data, piece, outer) for bad in chunk.bad]
        assert bad.reason
        assert self.count(data, piece, outer) == 10

    def test_blanks_between_rows_are_no_rows(self, outer: str | None) -> None:
        """Neither the reader nor the second reader counts them."""
        rows = self.some_rows(4)
        data = self.with_pieces(
            self.blank, rows[:2], self.blank, self.blank, rows[2:], self.blank, outer=outer
        )
        (piece,) = self.cut(data, outer)

        assert self.read(data, piece, outer) == rows
        assert self.count(data, piece, outer) == 4

    def test_a_file_that_is_cut_short_loses_no_row_in_silence(self, outer: str | None) -> None:
        """The reader raises an error that names the file, or the row that is cut is a bad row."""
        rows = self.some_rows(30)
        data = self.file_of(rows, compression=outer or "none")
        data = data[: len(data) - 3]
        refusal, found = "", []
        try:
            for piece in self.cut(data, outer, sharding=Sharding("rows", 7)):
                found += [row for _, row in self.placed(data, piece, outer)]
        except ShardFailedError as error:
            refusal = str(error)

        if not self.shows_its_end and outer is None:
            assert (found[:-1], len(found)) == (rows[:-1], len(rows))
            return
        assert ("in.file" in refusal) if refusal else (found == [*rows[:-1], None])

    def test_a_file_is_read_in_bounded_memory(self) -> None:
        """A file may be larger than the worker's memory."""
        rows = [{**row, "text": row["text"] * 800} for row in self.some_rows(2_400)]
        data = self.file_of(rows)
        chunks = self.chunks(data, self.whole(data), None)
        sizes = [(chunk.nbytes, len(chunk)) for chunk in chunks]

        assert sum(count for _, count in sizes) == len(rows)
        assert max(size for size, _ in sizes) <= self.most_held

    @pytest.mark.parametrize("sharding", SHARDINGS[:3], ids=str)
    def test_the_hash_of_a_slice_holds_as_long_as_its_bytes_do(self, sharding: Sharding) -> None:
        """The hash accepts a copy of the file, and rejects one with a changed byte in a row."""
        data = self.file_of(self.some_rows(12))
        for piece in self.cut(data, None, sharding=sharding):
            hashed = self._hashed(data, piece)
            assert self._has_same_bytes(data, piece, hashed)
            assert not self._has_same_bytes(self._changed(data, piece), piece, hashed)

    def test_the_hash_of_a_slice_covers_what_its_rows_need_of_the_bytes_before_it(self) -> None:
        """A changed header line, for example, changes the rows of all slices."""
        data = self.file_of(self.some_rows(12))
        piece = self.cut(data, None, sharding=Sharding("rows", 5))[-1]
        before = piece.start if piece.slicing is Slicing.BYTES else len(data)
        hashed, rows = self._hashed(data, piece), self.placed(data, piece)
        for at in range(before):
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            if self._reads_others(changed, piece, rows):
                assert not self._has_same_bytes(changed, piece, hashed), f"byte {at} changed"

    def _hashed(self, data: bytes, piece: Slice) -> str:
        hashed, file = self.format.source_hash(piece, columns=None), io.BytesIO(data)
        assert list(self.chunks(hashed.over(file), piece, None))
        hashed.finish(file)
        assert hashed.text, "no hash of what `read` read: override source_hash and has_same_bytes"
        return hashed.text

    def _has_same_bytes(self, data: bytes, piece: Slice, hashed: str) -> bool:
        return self.format.has_same_bytes(io.BytesIO(data), piece, columns=None, hashed=hashed)

    def _reads_others(self, data: bytes, piece: Slice, rows: list[tuple[int, Any]]) -> bool:
        try:
            return self.placed(data, piece) != rows
        except Exception:  # noqa: BLE001 - of a damaged file, a reader may refuse anything
            return True

    def _changed(self, data: bytes, piece: Slice) -> bytes:
        # A byte of the first row: without compression, the text of the row is found in the file.
        at = data.find(b"row ", piece.start if piece.slicing is Slicing.BYTES else 0)
        return data[:at] + b"R" + data[at + 1 :]

    # What a sink must do

    def test_a_part_holds_each_value_and_its_type(self) -> None:
        """The part is read back exactly, with every compression."""
        for compression in self.format.compressions:
            for value in self.values:
                rows = [{**row, "v": value} for row in self.some_rows(3)]
                data = self.file_of(rows, compression=compression)
                assert list(map(repr, self._part(data, compression))) == list(map(repr, rows))
                assert list(map(repr, self.second(data, compression))) == list(map(repr, rows))

    def test_a_table_is_encoded_as_its_rows_are(self) -> None:
        """What `encode_table` saves is time; what it does not know, it leaves to `encode`."""
        assert isinstance(self.format, RowFormat)
        from batchrunner.formats.columns import rows_to_table

        rows = self.some_rows(5)
        lines = self.format.encode_table(rows_to_table(rows))

        assert lines is None or lines == self.format.encode(rows)

    def test_a_part_is_counted_in_full(self) -> None:
        """The second reader counts all rows; so does the part's metadata, if it has a count."""
        for compression in self.format.compressions:
            data = self.file_of(self.some_rows(20), compression=compression)
            reader = self.format.second_reader()
            assert reader.count_part(_unseekable(data, reader), compression=compression) == 20
            assert self.format.rows_in_part(io.BytesIO(data)) in (None, 20)

    def test_a_part_without_rows_has_none(self) -> None:
        """A shard has a part even if the capability dropped all of its rows."""
        data = self.file_of([])

        assert self.format.second_reader().count_part(io.BytesIO(data), compression="none") == 0
        if data:
            assert [self.read(data, piece) for piece in self.cut(data, None)] in ([], [[]])

    def test_what_the_format_cannot_hold_is_refused(self) -> None:
        """Only the row fails: the part is not lost, and no value is changed."""
        with pytest.raises(ValueError, match=r"\w"):
            self._ready([{"v": object()}])

    # What `verify` relies on

    @pytest.mark.parametrize("sharding", SHARDINGS, ids=str)
    def test_counts_agree_with_the_second_reader(
        self, outer: str | None, sharding: Sharding
    ) -> None:
        """They agree for each slice, and for the rest of the file after it."""
        data = self.file_of(self.some_rows(30), compression=outer or "none")
        done = 0
        for piece in self.cut(data, outer, sharding=sharding):
            rows = len(self.read(data, piece, outer))
            done += rows
            assert self.count(data, piece, outer) == rows
            assert self.count(data, piece, outer, after=True) == 30 - done

    def test_the_second_reader_gives_the_same_rows_at_the_same_positions(
        self, outer: str | None
    ) -> None:
        """This holds for a read in sequence and for a read by position."""
        data = self.file_of(self.some_rows(30), compression=outer or "none")
        for piece in self.cut(data, outer, sharding=Sharding("rows", 7)):
            placed = self.placed(data, piece, outer)
            assert self.again(data, piece, outer) == placed
            wanted = frozenset(at for at, _ in placed[1:6:2])
            again = dict(self.again(data, piece, outer, wanted=wanted))
            assert [again.get(at) for at, _ in placed[1:6:2]] == [row for _, row in placed[1:6:2]]

    def count(self, data: bytes, piece: Slice, outer: str | None, *, after: bool = False) -> int:
        """Return the number of rows that the second reader counts in a slice, or *after* it."""
        return self.format.second_reader().count_rows(
            piece, lambda: io.BytesIO(data), compression=outer, after=after
        )

    def again(
        self,
        data: bytes,
        piece: Slice,
        outer: str | None,
        *,
        wanted: frozenset[int] | None = None,
    ) -> list[tuple[int, Row]]:
        """Return the position and value of each row that the second reader finds in a slice."""
        reader, file = self.format.second_reader(), io.BytesIO(data)
        if isinstance(reader, RecordReader):
            records = reader.records(file, piece, wanted=wanted, compression=outer)
            return [(at, reader.row_of(record)) for some in records for at, record in some]
        tables = reader.tables(file, piece, wanted=wanted, columns=None)
        return [item for first, table in tables for item in enumerate(table.to_pylist(), first)]

    def second(self, data: bytes, compression: str) -> list[Row]:
        """Return the rows that the second reader finds in a part."""
        reader, file = self.format.second_reader(), io.BytesIO(data)
        if isinstance(reader, RecordReader):
            records = reader.part_records(file, compression=compression)
            return [reader.row_of(record) for some in records for _, record in some]
        tables = reader.tables(file, None, wanted=None, columns=None)
        return [row for _, table in tables for row in table.to_pylist()]

    def _part(self, data: bytes, compression: str) -> list[Row]:
        outer = compression if compression in self.format.outer else None
        (piece,) = self.cut(data, outer)
        return self.read(data, piece, outer)

    # What the registry relies on

    def test_a_part_is_found_again_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The output of one run is the source of the next."""
        monkeypatch.setattr(registry, "_targets", {"tested": self.format})
        monkeypatch.setattr(registry, "_formats", {})
        for compression in self.format.compressions:
            kind = registry.file_kind(f"part-00000{registry.part_suffix('tested', compression)}")
            outer = compression if compression in self.format.outer else None
            assert kind == registry.FileKind("tested", outer)
        assert self.format.default_compression in self.format.compressions


def _applicable(suite: type[FormatContract]) -> dict[str, bool]:
    """Return the tests that not every format has use for, and whether that of *suite* has."""
    contract, is_sink = FormatContract, bool(suite.format.compressions)
    of_sinks = (
        contract.test_a_part_holds_each_value_and_its_type,
        contract.test_a_part_is_counted_in_full,
        contract.test_a_part_without_rows_has_none,
        contract.test_what_the_format_cannot_hold_is_refused,
        contract.test_a_part_is_found_again_by_its_name,
    )
    return {
        **{test.__name__: is_sink for test in of_sinks},
        contract.test_a_table_is_encoded_as_its_rows_are.__name__: isinstance(
            suite.format, RowFormat
        ),
        contract.test_a_bad_record_costs_one_row.__name__: suite.bad_record is not None,
        contract.test_blanks_between_rows_are_no_rows.__name__: bool(suite.blank),
    }


def _slice(cut: Cut, *, size: int) -> Slice:
    return Slice(
        "in.file", cut.slicing, cut.start, cut.stop, size, "1", rows=cut.rows, weight=cut.weight
    )


def packed(data: bytes, compression: str | None) -> bytes:
    """Return *data* as another program would compress it; None and "none" leave it as it is."""
    if compression in {None, "none"}:
        return data
    if compression == "zst":
        import pyarrow as pa

        return pa.compress(data, "zstd", asbytes=True)  # type: ignore[no-any-return]
    codecs: dict[str | None, Any] = {"gz": gzip, "bz2": bz2, "xz": lzma}
    return bytes(codecs[compression].compress(data))


def _no_restart() -> Any:
    raise AssertionError("no row added to the schema")


def _tables(chunk: Chunk) -> list[Any]:
    """Return each segment of *chunk* with its table."""
    return [(one, chunk.table(one.start, one.stop)) for one in chunk.segments()]


@contextmanager
def _kept_open(out: io.BytesIO) -> Iterator[None]:
    """Ignore `out.close()` in the block, as the caller reads the bytes afterwards."""
    close, out.close = out.close, lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        out.close = close  # type: ignore[method-assign]


def _unseekable(data: bytes, reader: Any) -> Any:
    """Return a file with *data*, which cannot seek if *reader* claims to read in order."""
    return _InOrder(data) if reader.reads_in_order else io.BytesIO(data)


class _InOrder(io.BytesIO):
    def seek(self, *_: Any) -> int:
        raise AssertionError("reads_in_order is true, and the reader seeks")
