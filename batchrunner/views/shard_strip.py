"""The strip of shard cells: which part of a run is done, in flight, failed or to do."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise

from batchrunner.driver.progress import COMMITTED, COMMITTED_BEFORE, FAILED, IN_FLIGHT, PENDING


@dataclass(frozen=True, slots=True)
class Glyph:
    """How a cell of the strip looks: its glyph alone says it, its colour says it faster.

    Attributes:
        glyph: The character; no two states share one.
        ascii: The character where only ASCII can be shown.
        style: Its colour, for rich.
        meaning: What it stands for, in the legend.
    """

    glyph: str
    ascii: str
    style: str
    meaning: str


_PARTLY = ord("+")
CELLS = {
    COMMITTED: Glyph("█", "#", "green", "done"),
    COMMITTED_BEFORE: Glyph("▒", "=", "cyan", "done earlier"),
    _PARTLY: Glyph("▄", "+", "green", "partly"),
    IN_FLIGHT: Glyph("~", "~", "yellow", "running"),
    FAILED: Glyph("x", "x", "bold red", "failed"),
    PENDING: Glyph("·", ".", "dim", "to do"),
}


def strip(states: bytes, columns: int) -> list[tuple[Glyph, int]]:
    """Return at most *columns* cells for *states*, as runs of equal cells.

    With more shards than columns, a cell stands for several. One that failed shows in its cell, however
    many are done beside it: that is what the reader looks for.
    """
    return [(CELLS[state], len(list(run))) for state, run in groupby(downsampled(states, columns))]


def downsampled(states: bytes, columns: int) -> bytes:
    """Return *states*, of which each byte stands for one or several shards; at most *columns*."""
    count = len(states)
    if count <= columns:
        return states
    edges = [count * column // columns for column in range(columns + 1)]
    return bytes(_together(states[begin:end]) for begin, end in pairwise(edges))


def _together(states: bytes) -> int:
    for state in (FAILED, IN_FLIGHT):
        if state in states:
            return state
    pending, now = states.count(PENDING), states.count(COMMITTED)
    if pending:
        return PENDING if pending == len(states) else _PARTLY
    return COMMITTED if 2 * now >= len(states) else COMMITTED_BEFORE


def legend(states: bytes, columns: int) -> list[Glyph]:
    """Return the cells that the strip of *states* has, in the order of the legend."""
    shown = {*downsampled(states, columns)}
    return [cell for state, cell in CELLS.items() if state in shown]
