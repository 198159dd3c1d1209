"""The keys of one shard on their way into the table: of its rows in the source, and of its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.shard import Shard
from batchrunner.verify.key_table import KeyTable, Side
from batchrunner.verify.keys import NULL, key_of, keys_of_column
from batchrunner.verify.reading import Folders, Numbered, Numbers, row_of, with_folders

if TYPE_CHECKING:
    import pyarrow as pa


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
        times_are_text: Source or sink is JSON, where a date is text.
        folders: What the folders of its file say.
    """

    table: KeyTable
    shard: Shard
    columns: KeyColumns
    times_are_text: bool
    folders: Folders

    def lines(self, side: Side, lines: Numbered) -> Iterator[tuple[int, str]]:
        """Add the rows of *lines*; yield where those stand that are none, and why."""
        rows: list[dict[str, Any]] = []
        for at, line in lines:
            try:
                row = row_of(line)
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
