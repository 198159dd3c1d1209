"""Packs whole small files into shards, in the order of the source.

A shard costs a part, a sentinel and their syncs, however little it has to read. Only files of one
slice are packed: if one of them changes, its shard is made again, and no slice of a large file with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from batchrunner.checkpoint import PlanFacts
from batchrunner.driver.source_files import SourceFile
from batchrunner.formats.contract import Cut
from batchrunner.shard import Slicing

MOST_SLICES = 8192
"""A shard of more would have a sentinel of megabytes."""

_LEAST_SHARDS = 64
"""As many workers find work, whatever the rows cost; and 5,000 files make some 70 parts."""

CutFile = tuple[SourceFile, Sequence[Cut]]


def default_pack(cuts: Iterable[CutFile], *, shard: int) -> int:
    """Return how many bytes to pack where shards of *shard* bytes are the default, at least 1."""
    total = sum(piece.weight for _, pieces in cuts for piece in pieces)
    return max(min(total // _LEAST_SHARDS, shard), 1)


def packed(cuts: Iterable[CutFile], facts: PlanFacts) -> Iterator[list[tuple[SourceFile, Cut]]]:
    """Yield the slices of each shard: neighbouring files up to `facts.pack`, or one slice."""
    held: list[tuple[SourceFile, Cut]] = []
    size = 0
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
