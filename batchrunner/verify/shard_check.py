"""Checks a shard: its sentinel against its part, its dead letters and its slice of the source."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from batchrunner.checkpoint import RunLocation, Sentinel
from batchrunner.checkpoint.bundles import check_files
from batchrunner.checkpoint.commit import claim
from batchrunner.errors import DamagedOutputError, ForeignOutputError, ObjectNotFoundError
from batchrunner.formats.jsonl_second_reader import blocks
from batchrunner.shard import Shard, Slice
from batchrunner.storage import Entry
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.files_check import FilesCheck
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.part_check import read_part
from batchrunner.verify.reading import GONE, SourceReader, UncountableError


class ShardCheck:
    """Checks the shards of one run. Safe in several threads.

    Attributes:
        uncounted: By URI, why the rows of a source file could not be counted.
        files: Checks the files that parts list.
    """

    def __init__(self, run: RunLocation, evidence: Evidence) -> None:
        self.uncounted: dict[str, str] = {}
        self._run, self._evidence = run, evidence
        self._source = SourceReader(run.spec.source)
        self.files = FilesCheck(run.sink, evidence)

    def faults(self, shard: Shard) -> list[Finding]:
        """Return the defects of *shard*. It is no defect that a shard is not committed yet."""
        return [
            Finding(kind, self._evidence.part(shard), why, shard.id)
            for kind, why in self._faults(shard)
        ]

    def _faults(self, shard: Shard) -> Iterator[tuple[FindingKind, str]]:
        if shard.id in self._evidence.damaged:
            yield FindingKind.SENTINEL, self._evidence.damaged[shard.id]
        elif sentinel := self._evidence.sentinels.get(shard.id):
            if why := self._misplaced(shard, sentinel):
                yield FindingKind.SENTINEL, why
                return
            yield from self._part(sentinel)
            if (
                sentinel.files and sentinel.part not in self.files.read
            ):  # gone or torn: its files are not
                paths = self._run.checkpoint.paths_of(
                    self._evidence.plan.facts.stem(shard.id), attempt=sentinel.files
                )
                self.files.listed.update(paths)
            yield from self._dead_letters(sentinel)
            yield from self._rows_in(shard, sentinel)
        elif self._evidence.part(shard) in self._evidence.data:
            yield from self._unadopted(shard)

    def _misplaced(self, shard: Shard, sentinel: Sentinel) -> str:
        """Return why *sentinel* cannot be that of *shard*; "" if it can."""
        of = (sentinel.run_uid, sentinel.shard, sentinel.part)
        if of != (self._evidence.run_uid, shard.id, self._evidence.part(shard)):
            return f"its sentinel is of {sentinel.part} of run {sentinel.run_uid}"
        counts = (sentinel.rows_in, sentinel.rows_out, sentinel.rows_failed, sentinel.bytes)
        if min(counts) < 0 or sentinel.rows_failed > sentinel.rows_in:
            return "the counts of its sentinel do not add up"
        return ""

    def _part(self, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        entry = self._evidence.data.get(sentinel.part)
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
            read = read_part(self._run.sink, entry, self._evidence.plan.facts)
        except GONE as error:
            yield FindingKind.CHECKSUM, f"it changed while it was read: {error}"
            return
        # One finding for each part: changed bytes, or a failed decoding, explain a wrong count.
        if read.sha256 != sentinel.sha256:
            yield FindingKind.CHECKSUM, "its bytes are not those that were committed (SHA-256)"
        elif read.rows is None:
            yield FindingKind.ROWS_OUT, f"it cannot be decoded: {read.why}"
        elif read.rows != sentinel.rows_out:
            yield (
                FindingKind.ROWS_OUT,
                f"it has {read.rows:,} rows; its sentinel says {sentinel.rows_out:,}",
            )
        elif sentinel.files:
            yield from self.files.faults(entry)

    def _dead_letters(self, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        if not sentinel.errors:
            if sentinel.rows_failed:
                yield (
                    FindingKind.DEAD_LETTERS,
                    f"{sentinel.rows_failed:,} rows failed, and the sentinel names no dead letters",
                )
            return
        key, entry = f"errors/{sentinel.errors}", self._evidence.dead_letters.get(sentinel.errors)
        if entry is None:
            yield (
                FindingKind.DEAD_LETTERS,
                f"{key} is gone, with {sentinel.rows_failed:,} dead letters",
            )
            return
        try:
            rows, sha256 = self._read_dead_letters(entry)
        except GONE as error:
            yield FindingKind.DEAD_LETTERS, f"{key} changed while it was read: {error}"
            return
        if rows != sentinel.rows_failed:
            yield (
                FindingKind.DEAD_LETTERS,
                f"{key} has {rows:,} dead letters; the sentinel says {sentinel.rows_failed:,}",
            )
        elif sha256 != sentinel.errors_sha256:
            yield FindingKind.DEAD_LETTERS, f"the bytes of {key} are not those written (SHA-256)"

    def _read_dead_letters(self, entry: Entry) -> tuple[int, str]:
        """Return the count of intact dead letters in a file, and the SHA-256 of the file."""
        rows, held, digest = 0, b"", hashlib.sha256()
        with self._run.checkpoint.records.open(entry) as file:
            for block in blocks(file):
                digest.update(block)
                *lines, held = (held + block).split(b"\n")
                rows += sum(map(_is_dead_letter, lines))
        return rows, digest.hexdigest()

    def _rows_in(self, shard: Shard, sentinel: Sentinel) -> Iterator[tuple[FindingKind, str]]:
        # A shard that retries dead letters reads all of them, and no slice of the source.
        if shard.retries is not None:
            origin = self._evidence.sentinels.get(shard.retries)
            if origin is None:
                yield (
                    FindingKind.ROWS_IN,
                    f"it retried rows of shard {shard.retries}, which has no sentinel",
                )
                return
            rows, where = origin.rows_failed, f"the dead letters of shard {shard.retries} are"
        else:
            count = self._count(shard)
            if count is None:
                return
            rows, where = (
                count,
                "its slices of the source have"
                if len(shard.slices) > 1
                else "its slice of the source has",
            )
        if rows != sentinel.rows_in:
            yield (
                FindingKind.ROWS_IN,
                f"{where} {rows:,} rows; its sentinel counts {sentinel.rows_in:,}",
            )

    def _count(self, shard: Shard) -> int | None:
        """Return the row count of the slices of *shard*; None if one of them cannot be counted."""
        rows = 0
        for piece in shard.slices:
            count = self._counted(piece, self._source.count)
            if count is None:
                return None
            rows += count
        return rows

    def rows_after(self, piece: Slice) -> int:
        """Return the row count of the rest of the file after *piece*; 0 if it cannot be counted."""
        return self._counted(piece, self._source.count_after) or 0

    def _counted(self, piece: Slice, count: Callable[[Slice], int]) -> int | None:
        if piece.uri in self._evidence.changed:
            return None
        try:
            return count(piece)
        except (*GONE, UncountableError) as error:
            self.uncounted[piece.uri] = str(error)
            return None

    def _unadopted(self, shard: Shard) -> Iterator[tuple[FindingKind, str]]:
        """Yield a finding if the next run would refuse to adopt the part."""
        facts = self._evidence.plan.facts
        with contextlib.suppress(ObjectNotFoundError):  # a running driver removed it meanwhile
            try:
                sink, checkpoint = self._run.sink, self._run.checkpoint
                sentinel = claim(
                    facts.stem(shard.id),
                    facts.part(shard.id),
                    run_uid=self._evidence.run_uid,
                    sink=sink,
                    checkpoint=checkpoint,
                )
                check_files(sentinel, sink=sink, checkpoint=checkpoint)
            except DamagedOutputError as error:
                yield FindingKind.UNADOPTED, str(error)
            except ForeignOutputError:
                yield (
                    FindingKind.UNADOPTED,
                    "it has no sentinel, and nothing proves that this run wrote it",
                )


def _is_dead_letter(line: bytes) -> bool:
    try:
        dead_letter: Any = orjson.loads(line)
    except ValueError:
        return False
    return isinstance(dead_letter, dict) and {"shard", "source", "at"} <= dead_letter.keys()
