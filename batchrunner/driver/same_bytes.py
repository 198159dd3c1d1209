"""Files that have another time and the same bytes: touched, copied, checked out again.

Where nothing but a time tells that a file may have changed, the hashes decide that its committed
shards left in their sentinels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from batchrunner.checkpoint import Sentinel
from batchrunner.driver.plan import Opener, StoredPlan
from batchrunner.driver.source_files import SourceFile
from batchrunner.errors import StorageError
from batchrunner.shard import Shard, Slicing

_FILES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of the files that were looked into.

    Attributes:
        same: New identities of those whose bytes are what they were, by URI.
        changed: URIs of those whose bytes are not.
        shards: How many committed shards were compared.
    """

    same: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    shards: int = 0

    def notes(self) -> tuple[str, ...]:
        """Tell people what was compared."""
        lines = []
        if self.same:
            what = _counted(len(self.same), "file has another time", "files have another time")
            lines.append(f"{what} and the same bytes (compared {self._shards()})")
        if self.changed:
            what = _counted(len(self.changed), "file has", "files have")
            lines.append(f"{what} another time and other bytes: {_some(self.changed)}")
        return tuple(lines)

    def _shards(self) -> str:
        return _counted(self.shards, "committed shard", "committed shards")


class Comparer:
    """Compares files with what shards were made of, and each only once.

    A run surveys twice: before it has the right to run, and again when it has it.
    """

    def __init__(self, opener: Opener, *, columns: Sequence[str] | None) -> None:
        self._opener, self._columns = opener, columns
        self._known: dict[tuple[SourceFile, tuple[str, ...]], bool] = {}

    def compare(
        self, stored: StoredPlan, files: Sequence[SourceFile], committed: Mapping[int, Sentinel]
    ) -> Comparison:
        """Look into the *files* whose size is as planned and whose identity is not.

        A file is the same when all of its committed shards are, and there is one. Reads as many
        bytes as they did, a megabyte at a time of a few files at once.
        """
        doubtful = _doubtful(stored, files, committed)
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            same = list(pool.map(lambda item: self._is_same(*item), doubtful))
        return Comparison(
            same={
                file.uri: file.identity
                for (file, _), yes in zip(doubtful, same, strict=True)
                if yes
            },
            changed=tuple(
                file.uri for (file, _), yes in zip(doubtful, same, strict=True) if not yes
            ),
            shards=sum(len(made) for (_, made), yes in zip(doubtful, same, strict=True) if yes),
        )

    def _is_same(self, file: SourceFile, made: Sequence[tuple[Shard, str]]) -> bool:
        key = file, tuple(f"{shard.id} {hashed}" for shard, hashed in made)
        if key not in self._known:
            self._known[key] = self._looks_same(file, made)
        return self._known[key]

    def _looks_same(self, file: SourceFile, made: Sequence[tuple[Shard, str]]) -> bool:
        from batchrunner.formats.hashing import holds_still

        try:
            with self._opener(file) as opened:
                return all(
                    holds_still(opened, shard, file.kind, columns=self._columns, hashed=hashed)
                    for shard, hashed in made
                )
        except StorageError:  # it changes at this moment, or is gone: its shards will tell
            return False


def _doubtful(
    stored: StoredPlan, files: Sequence[SourceFile], committed: Mapping[int, Sentinel]
) -> list[tuple[SourceFile, list[tuple[Shard, str]]]]:
    """Return the files to look into, with their committed shards and the hashes of these.

    A file of which one committed shard has no hash is not among them: nothing can vouch for it.
    """
    known = {file.uri: file for file in files}
    made: dict[str, list[tuple[Shard, str]]] = {}
    for shard in stored.active:
        file = known.get(shard.uri)
        if file is None or file.size != shard.size or file.identity == shard.identity:
            continue
        if shard.id in committed and shard.slicing is not Slicing.DEAD_LETTERS:
            made.setdefault(shard.uri, []).append((shard, committed[shard.id].source_hash))
    return [(known[uri], some) for uri, some in made.items() if all(hashed for _, hashed in some)]


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _some(uris: Sequence[str]) -> str:
    return ", ".join(uris[:3]) + (", ..." if len(uris) > 3 else "")
