"""Checks the files that parts list: each is there, with the size and the bytes that its line says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple

from batchrunner.formats.jsonl_second_reader import numbered_lines, row_of
from batchrunner.storage import Entry, Storage
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import FindingKind
from batchrunner.verify.part_check import sha256_of
from batchrunner.verify.reading import GONE

_AT_ONCE = 16
_WHY = {
    FindingKind.MISSING: "{count} of its files are gone, such as {path}",
    FindingKind.SIZE: "{count} of its files have another size than it lists, such as {path}",
    FindingKind.CHECKSUM: "{count} of its files have other bytes than it lists (SHA-256), such as {path}",
}


class _Line(NamedTuple):
    path: str
    size: int
    sha256: str


class FilesCheck:
    """Checks the files of parts. Safe in several threads.

    Attributes:
        listed: Paths that the parts checked so far list.
        read: The parts whose files were checked.
    """

    def __init__(self, sink: Storage, evidence: Evidence) -> None:
        self.listed: set[str] = set()
        self.read: set[str] = set()
        self._sink, self._evidence = sink, evidence

    def faults(self, part: Entry) -> Iterator[tuple[FindingKind, str]]:
        """Yield what is wrong with the files that *part*, whose bytes are those committed, lists."""
        lines = self._lines(part)
        self.read.add(part.key)
        self.listed.update(line.path for line in lines)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            kinds = list(pool.map(self._fault, lines))
        for kind, why in _WHY.items():
            if paths := [line.path for line, one in zip(lines, kinds, strict=True) if one is kind]:
                yield kind, why.format(count=f"{len(paths):,}", path=paths[0])

    def unlisted(self) -> Sequence[str]:
        """Return the files in the sink that no part lists, once all parts are checked."""
        return sorted(self._evidence.files.keys() - self.listed)

    def _lines(self, part: Entry) -> list[_Line]:
        with self._sink.open(part) as file:
            records = chain.from_iterable(numbered_lines(file, at=0))
            rows: Iterator[dict[str, Any]] = (row_of(record) for _, record in records)
            return [_Line(row["path"], row["size"], row["sha256"]) for row in rows]

    def _fault(self, line: _Line) -> FindingKind | None:
        entry = self._evidence.files.get(line.path)
        if entry is None:
            return FindingKind.MISSING
        if entry.size != line.size:
            return FindingKind.SIZE
        try:
            sha256 = sha256_of(self._sink, entry)
        except GONE:
            return FindingKind.CHECKSUM  # it changed while it was read
        return None if sha256 == line.sha256 else FindingKind.CHECKSUM
