"""Compares keys: each row of the source must be in the output once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import RunLocation
from batchrunner.errors import InvalidSpecError, StorageError
from batchrunner.formats.contract import RecordReader, Records, TableReader
from batchrunner.shard import Shard
from batchrunner.verify.evidence import DeadLetterPositions, Evidence, SliceRead
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.key_table import DOUBLED, MISSING, UNKNOWN, KeyTable, Mismatch, Side
from batchrunner.verify.keys import NULL, key_of, keys_of_column, shown
from batchrunner.verify.reading import (
    GONE,
    Folders,
    Numbers,
    SourceReader,
    part_reader,
    unreadable,
    with_folders,
)

if TYPE_CHECKING:
    import pyarrow as pa


SHOWN = 20
"""The most keys of each kind that findings name; they only count the others."""

_KINDS = {
    FindingKind.KEY_MISSING: MISSING,
    FindingKind.KEY_DOUBLED: DOUBLED,
    FindingKind.KEY_UNKNOWN: UNKNOWN,
}

Step = Callable[[], None]
"""Called after each shard."""


class KeyCheck:
    """Compares the key columns of the committed shards of a run.

    Attributes:
        notes: What was compared, and what could not be compared; a line each.
        left_out: Ids of shards whose keys could not be compared: a file changed, or cannot be read.
    """

    def __init__(self, run: RunLocation, evidence: Evidence, *, names: tuple[str, ...]) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._run, self._evidence = run, evidence
        self._source, self._dead_letters = (
            SourceReader(run.spec.source),
            DeadLetterPositions(run, evidence),
        )
        self._columns = KeyColumns.named(names)
        self._part_reader = part_reader(run, evidence.plan.facts)

    def faults(self, shards: Sequence[Shard], *, step: Step) -> Iterator[Finding]:
        """Yield the keys that are missing, doubled or unknown; of each kind, name the first 20.

        Reads source and parts of the *shards* once, in bounded memory. Leaves out a shard, with a note,
        if its file is not the one that the run read, or cannot be read.

        Raises:
            InvalidSpecError: Source or output does not have a key column.
            StorageError: The storage failed, or the disk cannot hold the keys.
        """
        with KeyTable.opened(columns=len(self._columns.names)) as table:
            for shard in shards:
                yield from self._add(table, shard)
                step()
            table.compare()
            self._refuse_absent_columns(table)
            self.notes.insert(0, self._summary(table, shards=len(shards) - len(self.left_out)))
            for kind, condition in _KINDS.items():
                yield from self._findings_of(table, kind, condition)

    def _add(self, table: KeyTable, shard: Shard) -> list[Finding]:
        """Add all keys of one shard, or none; return a finding for each row that cannot be read."""
        reader = self._source.of(shard.first)
        have_types = isinstance(reader, TableReader) and isinstance(self._part_reader, TableReader)
        keys = ShardKeys(table, shard, self._columns, not have_types)
        try:
            bad = [
                finding
                for read in self._dead_letters.read_by(shard)
                for finding in self._add_source(keys, reader, read)
            ]
            return [*bad, *self._add_part(keys)]
        except GONE as error:
            return self._leave_out(table, shard, error)
        except StorageError:
            raise
        except unreadable() as error:
            return self._leave_out(table, shard, error)

    def _leave_out(self, table: KeyTable, shard: Shard, error: Exception) -> list[Finding]:
        # Drop all its keys: with only those of its source, its part would seem to lack them.
        table.drop(shard.id)
        self.left_out.add(shard.id)
        self.notes.append(f"{shard}: its keys were not compared: {error}")
        return []

    def _add_source(
        self, keys: ShardKeys, reader: RecordReader | TableReader, read: SliceRead
    ) -> Iterator[Finding]:
        names, wanted, failed = self._columns.names, read.wanted, read.failed
        if isinstance(reader, TableReader):
            for first, rows in self._source.tables(
                reader, read.piece, wanted=wanted, columns=names
            ):
                keys.add_table(rows, masks(first, len(rows), wanted=wanted, failed=failed))
            return
        keys = replace(keys, folders=self._source.folders(read.piece, columns=names))
        for records in self._source.records(reader, read.piece, wanted=wanted):
            good = [record for record in records if record[0] not in failed] if failed else records
            for at, why in keys.add_records(Side.SOURCE, good, reader=reader):
                what = f"byte {at:,} of {read.piece.uri} holds no row, and is no dead letter: {why}"
                yield self._finding(FindingKind.KEY_MISSING, keys.shard.id, what)
            if len(good) < len(records):
                bad = [record for record in records if record[0] in failed]
                for _ in keys.add_records(Side.FAILED, bad, reader=reader):
                    pass  # a row that cannot be read has no key, and is rightly a dead letter

    def _add_part(self, keys: ShardKeys) -> Iterator[Finding]:
        facts, shard = self._evidence.plan.facts, keys.shard
        with self._run.sink.open(self._evidence.data[facts.part(shard.id)]) as file:
            reader = self._part_reader
            if isinstance(reader, TableReader):
                names = self._columns.names
                for _, rows in reader.tables(file, None, wanted=None, columns=names):
                    keys.add_table(rows, {Side.SINK: None})
                return
            for records in reader.part_records(file, compression=facts.compression):
                for at, why in keys.add_records(Side.SINK, records, reader=reader):
                    what = f"byte {at:,} holds no row: {why}"
                    yield self._finding(FindingKind.ROWS_OUT, shard.id, what)

    def _refuse_absent_columns(self, table: KeyTable) -> None:
        for side, what, absent in zip(
            (Side.SOURCE, Side.SINK), ("source", "output"), self._columns.absent, strict=True
        ):
            if absent and table.rows(side):
                raise InvalidSpecError(
                    f"no row of the {what} has a column {min(absent)!r}; name one with --key that "
                    "the capability keeps"
                )

    def _summary(self, table: KeyTable, *, shards: int) -> str:
        rows = f"{table.rows(Side.SOURCE):,} in the source, {table.rows(Side.SINK):,} in the output"
        counts = ", ".join(f"{table.count(wrong):,} {kind.word}" for kind, wrong in _KINDS.items())
        committed = len(self._evidence.sentinels)
        some = "" if shards == committed else f" of {shards:,} of {committed:,} committed shards"
        return f"keys ({', '.join(self._columns.names)}){some}: {rows}; {counts}"

    def _findings_of(self, table: KeyTable, kind: FindingKind, condition: str) -> Iterator[Finding]:
        unnamed = table.count_by_shard(condition)
        for mismatch in table.mismatches(condition, most=SHOWN):
            what = f"{shown(mismatch.keys, self._columns.names)}: {_why(mismatch)}"
            yield self._finding(kind, mismatch.shard, what)
            unnamed[mismatch.shard] -= 1
        for shard, count in unnamed.items():
            if count:
                yield self._finding(kind, shard, f"{count:,} more keys are {kind.word}")

    def _finding(self, kind: FindingKind, shard: int, why: str) -> Finding:
        return Finding(kind, self._evidence.plan.facts.part(shard), why, shard)


def _why(key: Mismatch) -> str:
    why = f"{key.expected:,} in the shard's rows of the source, {key.in_part:,} in the part"
    others: dict[str, Any] = {
        "in the rows of other shards": key.in_source - key.expected,
        "in dead letters": key.failed,
    }
    # These explain where a surplus key may come from; they do not explain a missing key.
    origins = [f"; {where}: {count:,}" for where, count in others.items() if count]
    return why + "".join(origins if key.in_part > key.expected else [])


@dataclass(frozen=True, slots=True)
class KeyColumns:
    """The key columns, and which of them no row had so far.

    Attributes:
        names: Names of the columns.
        absent: Names that no row of the source had so far, and names that no row of the output had.
    """

    names: tuple[str, ...]
    absent: tuple[set[str], set[str]]

    @classmethod
    def named(cls, names: tuple[str, ...]) -> KeyColumns:
        return cls(names, (set(names), set(names)))

    def mark_present(self, side: Side, has: Callable[[str], bool]) -> None:
        """Record the key columns that rows of *side* have: those for which *has* returns true."""
        if absent := self.absent[side is Side.SINK]:
            absent -= {name for name in absent if has(name)}


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """Adds the keys of one shard to the table.

    Attributes:
        table: The table of the keys of all shards.
        shard: The shard.
        columns: The key columns.
        times_are_text: Whether source or sink has no types, such as JSON, where a date is text.
        folders: Columns that the folders of the file of the present slice name.
    """

    table: KeyTable
    shard: Shard
    columns: KeyColumns
    times_are_text: bool
    folders: Folders = field(default_factory=dict)

    def add_records(
        self, side: Side, records: Records, *, reader: RecordReader
    ) -> Iterator[tuple[int, str]]:
        """Add the keys of *records*; yield position and reason for each that holds no row."""
        rows: list[dict[str, Any]] = []
        for at, record in records:
            try:
                row = reader.row_of(record)
                rows.append(row if side is Side.SINK else with_folders(row, self.folders))
            except ValueError as error:
                yield at, str(error)
        if rows:
            self._add_rows(side, rows)

    def _add_rows(self, side: Side, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        self.columns.mark_present(side, lambda name: any(name in row for row in rows))
        columns = [[key_of(row.get(name)) for row in rows] for name in self.columns.names]
        keys = [pa.array(column, pa.large_binary()) for column in columns]
        self.table.add(self.shard.id, side, keys)

    def add_table(self, rows: pa.Table, masks: dict[Side, pa.Array | None]) -> None:
        """Add, for each side, the keys of the *rows* that its mask selects; None selects all."""
        keys = [self._column(rows, name) for name in self.columns.names]
        for side, mask in masks.items():
            self.columns.mark_present(side, rows.column_names.__contains__)
            some = keys if mask is None else [key.filter(mask) for key in keys]
            if len(some[0]):
                self.table.add(self.shard.id, side, some)

    def _column(self, rows: pa.Table, name: str) -> pa.Array:
        import pyarrow as pa

        if name not in rows.column_names:
            return pa.repeat(pa.scalar(NULL, pa.large_binary()), len(rows))
        return keys_of_column(rows.column(name), times_are_text=self.times_are_text)


def masks(
    first: int, count: int, *, wanted: Numbers | None, failed: Numbers
) -> dict[Side, pa.Array | None]:
    """Return masks of *count* rows from number *first* on: that succeeded, and that failed.

    Rows that are not *wanted* are in neither mask.
    """
    import pyarrow as pa

    numbers = range(first, first + count)
    if wanted is None and failed.isdisjoint(numbers):
        return {Side.SOURCE: None}
    read = [wanted is None or number in wanted for number in numbers]
    bad = [number in failed for number in numbers]
    pairs = list(zip(read, bad, strict=True))
    return {
        Side.SOURCE: pa.array([was_read and not is_bad for was_read, is_bad in pairs]),
        Side.FAILED: pa.array([was_read and is_bad for was_read, is_bad in pairs]),
    }
