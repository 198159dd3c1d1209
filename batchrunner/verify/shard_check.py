"""One shard held against its part, its rows set aside, and its slice of the source."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import orjson

from batchrunner.checkpoint import RunLocation, Sentinel
from batchrunner.checkpoint.commit import adopt
from batchrunner.errors import ForeignOutputError, ObjectNotFoundError
from batchrunner.formats.jsonl_second_reader import blocks
from batchrunner.shard import Shard, Slicing
from batchrunner.storage import Entry
from batchrunner.verify.counting import GONE, SourceRows, UncountableError
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.part_check import read_part


class ShardCheck:
    """Looks at the shards of one run. Safe in several threads.

    Attributes:
        uncounted: Source files whose rows cannot be counted any more, and why.
    """

    def __init__(self, place: RunLocation, evidence: Evidence) -> None:
        self.uncounted: dict[str, str] = {}
        self._place, self._seen = place, evidence
        self._source = SourceRows(place.spec.source)

    def faults(self, shard: Shard) -> list[Finding]:
        """Return what is wrong with *shard*; nothing when it is not committed yet."""
        return [
            Finding(kind, self._seen.part(shard), why, shard.id)
            for kind, why in self._faults(shard)
        ]

    def _faults(self, shard: Shard) -> Iterator[tuple[FindingKind, str]]:
        if shard.id in self._seen.damaged:
            yield FindingKind.SENTINEL, self._seen.damaged[shard.id]
        elif sentinel := self._seen.sentinels.get(shard.id):
            if why := self._misplaced(shard, sentinel):
                yield FindingKind.SENTINEL, why
                return
            yield from self._part(sentinel)
            yield from self._dead_letters(sentinel)
            yield from self._rows_in(shard, sentinel)
        elif self._seen.part(shard) in self._seen.data:
            yield from self._unadopted(shard)

    def _misplaced(self, shard: Shard, sentinel: Sentinel) -> str:
        found = (sentinel.run_uid, sentinel.shard, sentinel.part)
        if found != (self._seen.run_uid, shard.id, self._seen.part(shard)):
            return f"its sentinel is of {sentinel.part} of run {sentinel.run_uid}"
        counts = (sentinel.rows_in, sentinel.rows_out, sentinel.rows_failed, sentinel.bytes)
        if min(counts) < 0 or sentinel.rows_failed > sentinel.rows_in:
            return "the counts of its sentinel do not add up"
        return ""

    def _part(self, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        entry = self._seen.data.get(sentinel.part)
        if entry is None:
            yield FindingKind.MISSING, f"it is gone; its sentinel says {sentinel.bytes:,} bytes"
        elif entry.size != sentinel.bytes:
            yield (
                FindingKind.SIZE,
                f"it has {entry.size:,} bytes; its sentinel says {sentinel.bytes:,}",
            )
        else:
            yield from self._content(entry, sentinel)

    def _content(self, entry: Entry, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        try:
            read = read_part(self._place.sink, entry, self._seen.plan.facts)
        except GONE as error:
            yield FindingKind.CHECKSUM, f"it changed while it was read: {error}"
            return
        if read.sha256 != sentinel.sha256:
            yield FindingKind.CHECKSUM, "its bytes are not those that were committed (SHA-256)"
        elif read.rows is None:
            yield FindingKind.ROWS_OUT, f"it cannot be decoded: {read.why}"
        elif read.rows != sentinel.rows_out:
            yield (
                FindingKind.ROWS_OUT,
                f"it has {read.rows:,} rows; its sentinel says {sentinel.rows_out:,}",
            )

    def _dead_letters(self, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        if not sentinel.errors:
            if sentinel.rows_failed:
                yield (
                    FindingKind.DEAD_LETTERS,
                    f"{sentinel.rows_failed:,} rows were set aside, in no file at all",
                )
            return
        place, entry = f"errors/{sentinel.errors}", self._seen.dead_letters.get(sentinel.errors)
        if entry is None:
            yield (
                FindingKind.DEAD_LETTERS,
                f"{place} is gone, with {sentinel.rows_failed:,} rows set aside",
            )
            return
        try:
            found, sha256 = self._read_dead_letters(entry)
        except GONE as error:
            yield FindingKind.DEAD_LETTERS, f"{place} changed while it was read: {error}"
            return
        if found != sentinel.rows_failed:
            yield (
                FindingKind.DEAD_LETTERS,
                f"{place} has {found:,} whole rows; the sentinel says {sentinel.rows_failed:,}",
            )
        elif sha256 != sentinel.errors_sha256:
            yield FindingKind.DEAD_LETTERS, f"{place} is not, byte for byte, what was set aside"

    def _read_dead_letters(self, entry: Entry) -> tuple[int, str]:
        rows, held, digest = 0, b"", hashlib.sha256()
        with self._place.checkpoint.records.open(entry) as file:
            for block in blocks(file):
                digest.update(block)
                *lines, held = (held + block).split(b"\n")
                rows += sum(map(_is_dead_letter, lines))
        return rows, digest.hexdigest()

    def _rows_in(self, shard: Shard, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        if shard.slicing is Slicing.DEAD_LETTERS:
            origin = self._seen.sentinels.get(shard.start)
            if origin is None:
                yield (
                    FindingKind.ROWS_IN,
                    f"it tried rows of shard {shard.start} again, which has none",
                )
                return
            rows, where = origin.rows_failed, f"shard {shard.start} set aside"
        else:
            counted = self._counted(shard)
            if counted is None:
                return
            rows, where = counted, "its slice of the source has"
        if rows != sentinel.rows_in:
            yield (
                FindingKind.ROWS_IN,
                f"{where} {rows:,} rows; its sentinel counts {sentinel.rows_in:,}",
            )

    def _counted(self, shard: Shard) -> int | None:
        if shard.uri in self._seen.changed:
            return None
        try:
            return self._source.of(shard)
        except (*GONE, UncountableError) as error:
            self.uncounted[shard.uri] = str(error)
            return None

    def rows_after(self, shard: Shard) -> int:
        """Return the rows of the file of *shard* that come after it; 0 if that cannot be told."""
        if shard.uri in self._seen.changed:
            return 0
        try:
            return self._source.after(shard)
        except (*GONE, UncountableError) as error:
            self.uncounted[shard.uri] = str(error)
            return 0

    def _unadopted(self, shard: Shard) -> Iterator[tuple[FindingKind, str]]:
        """Tell whether the next run would take the part for that of an attempt of its own."""
        facts = self._seen.plan.facts
        with contextlib.suppress(ObjectNotFoundError):
            try:
                adopt(
                    facts.stem(shard.id),
                    facts.part(shard.id),
                    run_uid=self._seen.run_uid,
                    sink=self._place.sink,
                    checkpoint=self._place.checkpoint,
                )
            except ForeignOutputError:
                yield (
                    FindingKind.UNADOPTED,
                    "it has no sentinel, and nothing tells that this run wrote it",
                )


def _is_dead_letter(line: bytes) -> bool:
    try:
        dead_letter: Any = orjson.loads(line)
    except ValueError:
        return False
    return isinstance(dead_letter, dict) and {"shard", "source", "at"} <= dead_letter.keys()
