"""Which rows of the source a shard set aside, and which it is to try again: by where they stand."""

from __future__ import annotations

from itertools import chain

from batchrunner.checkpoint import RunLocation
from batchrunner.formats.jsonl_second_reader import numbered_lines
from batchrunner.shard import Shard, Slicing
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.reading import Numbers, position_of


class DeadLetters:
    """The dead letters of a run whose files are whole."""

    def __init__(self, place: RunLocation, seen: Evidence) -> None:
        self._records, self._seen = place.checkpoint.records, seen

    def of(self, shard: Shard) -> Numbers:
        """Return where the rows stand that *shard* set aside."""
        return self._positions(shard.id)

    def wanted(self, shard: Shard) -> Numbers | None:
        """Return where the rows of *shard* stand if it tries dead letters again, else None."""
        return self._positions(shard.start) if shard.slicing is Slicing.DEAD_LETTERS else None

    def _positions(self, shard_id: int) -> Numbers:
        name = self._seen.sentinels[shard_id].errors
        if not name:
            return frozenset()
        with self._records.open(self._seen.dead_letters[name]) as file:
            lines = chain.from_iterable(numbered_lines(file, at=0))
            return frozenset(position_of(line) for _, line in lines)
