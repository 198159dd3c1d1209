"""The keys of source and sink, held against each other: each row that came in, out once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import RunLocation
from batchrunner.errors import InvalidSpecError, StorageError
from batchrunner.formats.contract import RecordReader, Records, TableReader
from batchrunner.shard import Shard
from batchrunner.verify.counting import GONE, unreadable
from batchrunner.verify.dead_letters import DeadLetters
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.key_table import DOUBLED, MISSING, UNKNOWN, KeyTable, Odd, Side
from batchrunner.verify.keys import NULL, key_of, keys_of_column, shown
from batchrunner.verify.reading import Folders, Numbers, SourceReader, with_folders

if TYPE_CHECKING:
    import pyarrow as pa


SHOWN = 20
"""How many keys of a kind are named."""

_KINDS = {
    FindingKind.KEY_MISSING: MISSING,
    FindingKind.KEY_DOUBLED: DOUBLED,
    FindingKind.KEY_UNKNOWN: UNKNOWN,
}

Step = Callable[[], None]
"""Told that one more shard is done."""


class KeyCheck:
    """Compares the key columns of the committed shards of a run.

    Attributes:
        notes: What was compared, and what could not be; a line each.
        left_out: Ids of shards whose keys could not be compared.
    """

    def __init__(self, place: RunLocation, seen: Evidence, *, names: tuple[str, ...]) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._place, self._seen = place, seen
        self._source, self._dead_letters = SourceReader(place.spec.source), DeadLetters(place, seen)
        self._columns = KeyColumns.named(names)
        self._part_reader = seen.plan.facts.part_format.second_reader()

    def faults(self, shards: Sequence[Shard], *, step: Step) -> Iterator[Finding]:
        """Yield the keys that are missing, doubled or unknown; of each kind the first ones by name.

        Reads source and parts of the *shards* once each, in bounded memory. Those whose file is
        not the one that was read are left out and noted.

        Raises:
            InvalidSpecError: Source or output has no such column.
            StorageError: Something cannot be read, or the disk cannot hold the keys.
        """
        with KeyTable.opened(columns=len(self._columns.names)) as table:
            for shard in shards:
                yield from self._add(table, shard)
                step()
            table.compare()
            self._refuse_absent_columns(table)
            self.notes.insert(0, self._summary(table, shards=len(shards) - len(self.left_out)))
            for kind, odd in _KINDS.items():
                yield from self._named(table, kind, odd)

    def _add(self, table: KeyTable, shard: Shard) -> list[Finding]:
        """Add the keys of one shard, or none of it; return the rows that cannot be read."""
        reader = self._source.of(shard)
        have_types = isinstance(reader, TableReader) and isinstance(self._part_reader, TableReader)
        folders = self._source.folders(shard, columns=self._columns.names)
        keys = ShardKeys(table, shard, self._columns, not have_types, folders)
        try:
            return [*self._add_source(keys, reader), *self._add_part(keys)]
        except GONE as error:
            return self._leave_out(table, shard, error)
        except StorageError:
            raise
        except unreadable() as error:
            return self._leave_out(table, shard, error)

    def _leave_out(self, table: KeyTable, shard: Shard, error: Exception) -> list[Finding]:
        # With half of its keys it would seem to lack the others.
        table.drop(shard.id)
        self.left_out.add(shard.id)
        self.notes.append(f"{shard}: its keys were not compared: {error}")
        return []

    def _add_source(self, keys: ShardKeys, reader: RecordReader | TableReader) -> Iterator[Finding]:
        shard = keys.shard
        wanted, aside = self._dead_letters.wanted(shard), self._dead_letters.of(shard)
        if isinstance(reader, TableReader):
            names = self._columns.names
            for first, rows in self._source.tables(reader, shard, wanted=wanted, columns=names):
                keys.rows(rows, sides(first, len(rows), wanted=wanted, aside=aside))
            return
        for lines in self._source.records(reader, shard, wanted=wanted):
            good = [line for line in lines if line[0] not in aside] if aside else lines
            for at, why in keys.records(Side.SOURCE, good, reader=reader):
                what = (
                    f"the row at byte {at:,} of {shard.uri} was not set aside, and is none: {why}"
                )
                yield self._finding(FindingKind.KEY_MISSING, shard.id, what)
            if len(good) < len(lines):
                bad = [line for line in lines if line[0] in aside]
                for _ in keys.records(Side.ASIDE, bad, reader=reader):
                    pass  # rows that cannot be read are set aside, too

    def _add_part(self, keys: ShardKeys) -> Iterator[Finding]:
        facts, shard = self._seen.plan.facts, keys.shard
        with self._place.sink.open(self._seen.data[facts.part(shard.id)]) as file:
            reader = self._part_reader
            if isinstance(reader, TableReader):
                names = self._columns.names
                for _, rows in reader.tables(file, None, wanted=None, columns=names):
                    keys.rows(rows, {Side.SINK: None})
                return
            for lines in reader.part_records(file, compression=facts.compression):
                for at, why in keys.records(Side.SINK, lines, reader=reader):
                    what = f"what stands at byte {at:,} is no row: {why}"
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
        odd = ", ".join(f"{table.count(odd):,} {kind.word}" for kind, odd in _KINDS.items())
        committed = len(self._seen.sentinels)
        some = "" if shards == committed else f" of {shards:,} of {committed:,} committed shards"
        return f"keys ({', '.join(self._columns.names)}){some}: {rows}; {odd}"

    def _named(self, table: KeyTable, kind: FindingKind, odd: str) -> Iterator[Finding]:
        more = table.by_shard(odd)
        for one in table.odd(odd, most=SHOWN):
            what = f"{shown(one.keys, self._columns.names)}: {_why(one)}"
            yield self._finding(kind, one.shard, what)
            more[one.shard] -= 1
        for shard, count in more.items():
            if count:
                yield self._finding(kind, shard, f"{count:,} more keys are {kind.word}")

    def _finding(self, kind: FindingKind, shard: int, why: str) -> Finding:
        return Finding(kind, self._seen.plan.facts.part(shard), why, shard)


def _why(odd: Odd) -> str:
    why = f"{odd.expected:,} in the shard's rows of the source, {odd.found:,} in the part"
    others: dict[str, Any] = {
        "in the rows of other shards": odd.in_source - odd.expected,
        "set aside": odd.aside,
    }
    told = [f"; {where}: {count:,}" for where, count in others.items() if count]
    return why + "".join(told if odd.found > odd.expected else [])


@dataclass(frozen=True, slots=True)
class KeyColumns:
    """The columns that name a row, and whether they are there at all.

    Attributes:
        names: Of the columns.
        absent: Those that no row of the source had so far, and no row of the output.
    """

    names: tuple[str, ...]
    absent: tuple[set[str], set[str]]

    @classmethod
    def named(cls, names: tuple[str, ...]) -> KeyColumns:
        return cls(names, (set(names), set(names)))

    def look(self, side: Side, has: Callable[[str], bool]) -> None:
        """Note which of the columns rows of *side* have."""
        if absent := self.absent[side is Side.SINK]:
            absent -= {name for name in absent if has(name)}


@dataclass(frozen=True, slots=True)
class ShardKeys:
    """Adds rows of one shard.

    Attributes:
        table: Where to.
        shard: The shard.
        columns: What names a row.
        times_are_text: Source or sink has no types, as JSON, where a date is text.
        folders: What the folders of its file say.
    """

    table: KeyTable
    shard: Shard
    columns: KeyColumns
    times_are_text: bool
    folders: Folders

    def records(
        self, side: Side, records: Records, *, reader: RecordReader
    ) -> Iterator[tuple[int, str]]:
        """Add the rows of *records*; yield the positions of those that hold none, and why."""
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

        self.columns.look(side, lambda name: any(name in row for row in rows))
        columns = [[key_of(row.get(name)) for row in rows] for name in self.columns.names]
        keys = [pa.array(column, pa.large_binary()) for column in columns]
        self.table.add(self.shard.id, side, keys)

    def rows(self, rows: pa.Table, sides: dict[Side, pa.Array | None]) -> None:
        """Add rows of a table to each of *sides*: those that its mask picks, or all of them."""
        keys = [self._column(rows, name) for name in self.columns.names]
        for side, mask in sides.items():
            self.columns.look(side, rows.column_names.__contains__)
            some = keys if mask is None else [key.filter(mask) for key in keys]
            if len(some[0]):
                self.table.add(self.shard.id, side, some)

    def _column(self, rows: pa.Table, name: str) -> pa.Array:
        import pyarrow as pa

        if name not in rows.column_names:
            return pa.repeat(pa.scalar(NULL, pa.large_binary()), len(rows))
        return keys_of_column(rows.column(name), times_are_text=self.times_are_text)


def sides(
    first: int, count: int, *, wanted: Numbers | None, aside: Numbers
) -> dict[Side, pa.Array | None]:
    """Return which of *count* rows from number *first* on belong to which side of the source."""
    import pyarrow as pa

    numbers = range(first, first + count)
    if wanted is None and aside.isdisjoint(numbers):
        return {Side.SOURCE: None}
    ours = [wanted is None or number in wanted for number in numbers]
    bad = [number in aside for number in numbers]
    pairs = list(zip(ours, bad, strict=True))
    return {
        Side.SOURCE: pa.array([mine and not failed for mine, failed in pairs]),
        Side.ASIDE: pa.array([mine and failed for mine, failed in pairs]),
    }
