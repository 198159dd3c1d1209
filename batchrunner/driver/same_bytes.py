"""Detects files that have a new time but the same bytes: touched, copied, checked out again.

The sentinels of committed shards hold a hash of what was read. A file whose size is the same and
whose time differs is read again and compared with these hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from batchrunner.checkpoint import Sentinel
from batchrunner.driver.file_table import SourceFile, SourceFiles
from batchrunner.driver.source_files import Opener, opener_of
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import StorageError
from batchrunner.formats.format_error import refused
from batchrunner.shard import Slice
from batchrunner.spec import BatchSpec

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing files with the hashes of their committed shards.

    Attributes:
        same: By URI, the new identity of each file whose bytes did not change.
        changed: URIs of files whose bytes differ.
        slices: How many committed slices of the unchanged files were compared.
    """

    same: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    slices: int = 0

    def notes(self) -> tuple[str, ...]:
        """Return what is the same as warnings for the user; `growth.py` names what changed."""
        if not self.same:
            return ()
        what = _counted(len(self.same), "file has another time", "files have another time")
        return (f"{what} and the same bytes (compared {self._slices()})",)

    def _slices(self) -> str:
        return _counted(self.slices, "committed slice", "committed slices")


class Comparer:
    """Compares files with the hashes of their committed shards; reads each file only once.

    Results are cached because a driver surveys twice: before it acquires the lease, and after.
    """

    def __init__(self, opener: Opener, *, columns: Sequence[str] | None) -> None:
        self._opener, self._columns = opener, columns
        self._results: dict[tuple[SourceFile, tuple[str, ...]], bool] = {}

    @classmethod
    def of(cls, spec: BatchSpec) -> Comparer:
        """Return a comparer of the source files of *spec*."""
        return cls(opener_of(spec), columns=spec.source.columns)

    def compare(
        self, stored: StoredPlan, files: Sequence[SourceFile], committed: Mapping[int, Sentinel]
    ) -> Comparison:
        """Compare those *files* whose size is as planned but whose identity is not.

        A file is the same if it has committed slices and the bytes of all of them are unchanged.
        Reads the bytes of these slices, a megabyte at a time, from a few files at once.
        """
        candidates = _candidates(stored, files, committed)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            results = list(pool.map(lambda item: self._is_same(*item), candidates))
        same = [item for item, is_same in zip(candidates, results, strict=True) if is_same]
        changed = [item for item, is_same in zip(candidates, results, strict=True) if not is_same]
        return Comparison(
            same={file.uri: file.identity for file, _ in same},
            changed=tuple(file.uri for file, _ in changed),
            slices=sum(len(slices) for _, slices in same),
        )

    def _is_same(self, file: SourceFile, made: Sequence[tuple[Slice, str]]) -> bool:
        key = file, tuple(f"{piece} {hashed}" for piece, hashed in made)
        if key not in self._results:
            self._results[key] = self._has_same_bytes(file, made)
        return self._results[key]

    def _has_same_bytes(self, file: SourceFile, made: Sequence[tuple[Slice, str]]) -> bool:
        known = file.kind.reader
        try:
            with (
                refused(f"{file.uri} cannot be compared", file.kind.format),
                self._opener(file) as opened,
            ):
                return all(
                    known.has_same_bytes(opened, piece, columns=self._columns, hashed=hashed)
                    for piece, hashed in made
                )
        except StorageError:  # the file changes right now, or is gone: its shards will fail
            return False


def _candidates(
    stored: StoredPlan, files: Sequence[SourceFile], committed: Mapping[int, Sentinel]
) -> list[tuple[SourceFile, list[tuple[Slice, str]]]]:
    """Return the files to compare, each with its committed slices and their hashes.

    Leaves out a file if one of its committed slices has no hash: such a file counts as changed.
    """
    touched = _touched(stored, files)
    if not touched:
        return []
    listed = {file.uri: file for file in touched}
    made: dict[str, list[tuple[Slice, str]]] = {}
    for shard in stored.active:
        if shard.id not in committed or shard.retries is not None:
            continue
        hashes = committed[shard.id].hashes_of(shard.slices)
        for piece, hashed in zip(shard.slices, hashes, strict=True):
            if piece.uri in listed:
                made.setdefault(piece.uri, []).append((piece, hashed))
    return [(listed[uri], some) for uri, some in made.items() if all(hashed for _, hashed in some)]


def _touched(stored: StoredPlan, files: Sequence[SourceFile]) -> SourceFiles:
    """Return the *files* that have the planned size, and another identity.

    Another size means other bytes, the same identity the same bytes: neither needs a read.
    """
    import pyarrow.compute as pc

    some, plan = SourceFiles.of(files), stored.table()
    if stored.is_of(some):
        return some[:0]
    at = pc.index_in(some.column("uri"), value_set=plan.column("uri"))
    size, identity = (plan.column(name).take(at) for name in ("size", "identity"))
    is_same_size = pc.equal(some.column("size"), size)
    return some.where(pc.and_(is_same_size, pc.not_equal(some.column("identity"), identity)))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
