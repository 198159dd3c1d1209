"""Packs whole small files into shards, in the order of the source.

A shard costs a part, a sentinel and their syncs, however little it has to read. Only files of one
slice are packed: if one of them changes, its shard is made again, and no slice of a large file with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from batchrunner.checkpoint import PlanFacts
from batchrunner.checkpoint.plan_table import FEW_SLICES
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.source_files import slice_of
from batchrunner.formats.contract import Cut
from batchrunner.shard import Slice, SliceTable, Slicing
from batchrunner.spec import BatchSpec

MOST_SLICES = 8192
"""A shard of more would have a sentinel of megabytes."""

FEW_FILES = 64
"""So many files keep a shard each, unless some are much smaller: as many workers find work."""

_PACKS = 8
"""More files than `FEW_FILES` make as many shards, if those are small. The last batch of each shard is
half full: of 195 batches, 8 more are 4 %. Where rows are slow, shards are cut as they run."""

_PACKS_A_WORKER = 16
"""Where it is known how many workers there are, they have as many shards each: with 9 shards, one of
two workers would have 5, and the other would wait for a tenth of the run."""

_SMALL = 4 << 20
_ROOM = (
    1.01  # files do not fill a pack to the byte: else a ninth one would have the few that are left
)

CutFile = tuple[SourceFile, Sequence[Cut]]


def size_of(cuts: Iterable[CutFile]) -> int:
    """Return the size of the slices in *cuts*, in bytes."""
    return sum(piece.weight for _, pieces in cuts for piece in pieces)


def default_pack(size: int, *, files: int, shard: int, packs: int = _PACKS) -> int:
    """Return how many bytes to pack of *files* files of *size*, cut into shards of *shard* bytes; at least 1."""
    if files <= FEW_FILES:
        return max(min(size // FEW_FILES, shard), 1)
    return max(min(int(size * _ROOM) // packs, max(shard, _SMALL)), 1)


def default_packs(spec: BatchSpec) -> int:
    """Return how many shards a source of many small files makes, where the spec does not say."""
    called = spec.called
    stages = called.stages or ()
    if called.one_to_one or (stages and all(stage.keeps_origins for stage in stages)):
        return FEW_FILES  # batches go over the ends of shards
    concurrency = spec.execution.concurrency or 0
    workers = concurrency if isinstance(concurrency, int) else concurrency[1]
    return min(max(_PACKS, _PACKS_A_WORKER * workers), FEW_FILES)


def packed(cuts: Iterable[CutFile], facts: PlanFacts) -> Iterator[Sequence[Slice]]:
    """Yield the slices of each shard: neighbouring files up to `facts.pack`, or one slice."""
    for some in _packs(cuts, facts):
        yield _table(some) if len(some) > FEW_SLICES else tuple(slice_of(*pair) for pair in some)


def _table(some: Sequence[tuple[SourceFile, Cut]]) -> SliceTable:
    return SliceTable.of([slice_of(*pair) for pair in some])


def _packs(cuts: Iterable[CutFile], facts: PlanFacts) -> Iterator[list[tuple[SourceFile, Cut]]]:
    held: list[tuple[SourceFile, Cut]] = []
    size: float = 0
    for file, pieces in cuts:
        measure = _measure(pieces, facts.unit)
        is_full = size + measure > facts.pack or len(held) == MOST_SLICES
        if held and is_full:
            yield held
            held, size = [], 0
        if measure > facts.pack:
            yield from ([(file, piece)] for piece in pieces)
        else:
            held.append((file, pieces[0]))
            size += measure
    if held:
        yield held


def _measure(pieces: Sequence[Cut], unit: str) -> float:
    """Return the size of a file in *unit*; infinite if it must not be packed."""
    if len(pieces) != 1:
        return float("inf")
    (piece,) = pieces
    if unit == "files":
        return 1
    if unit == "bytes":
        return piece.weight
    if unit == "rows" and piece.rows is not None:
        return piece.rows
    if unit == "row_groups" and piece.slicing is Slicing.ROW_GROUPS:
        return piece.stop - piece.start
    return float("inf")
