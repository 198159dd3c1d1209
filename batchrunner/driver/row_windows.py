"""Cuts files by rows that their format cannot cut, such as compressed ones: into windows of their rows.

Such a file is read once to be planned, and then from its start for each window.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.source_files import Opener, slice_of
from batchrunner.errors import ShardFailedError
from batchrunner.formats.contract import Cut, Sharding
from batchrunner.shard import Shard, Slicing

_WORTH_A_NOTE = 2.0


def in_windows(
    file: SourceFile, cuts: list[Cut], sharding: Sharding, *, opener: Opener
) -> list[Cut]:
    """Return *cuts* of *file*; if that is one with more rows than *sharding* asks for, its windows.

    Each has its row count, unreadable rows included. A damaged file stays as it is.
    """
    if sharding.unit != "rows" or len(cuts) != 1:
        return cuts
    (whole,) = cuts
    if whole.slicing not in {Slicing.FILE, Slicing.HEAD}:
        return cuts
    rows = _count(file, whole, opener) if whole.rows is None else whole.rows
    if rows is None:
        return cuts
    return list(_windows(replace(whole, rows=rows), rows, sharding.count))


def _windows(whole: Cut, rows: int, every: int) -> Iterable[Cut]:
    if rows <= every:
        yield whole
        return
    for start in range(0, rows, every):
        count = min(every, rows - start)
        # The last one is read to the end of the file, which shows damage there.
        take = count if start + count < rows else None
        yield replace(whole, rows=count, weight=whole.weight * count // rows, skip=start, take=take)


def _count(file: SourceFile, whole: Cut, opener: Opener) -> int | None:
    rows = 0
    with opener(file) as opened:
        try:
            for chunk in file.kind.reader.read(
                opened,
                slice_of(file, whole),
                compression=file.kind.compression,
                columns=None,
                partition=(),
            ):
                rows += len(chunk) + len(chunk.bad)
        except ShardFailedError:
            return None
    return rows


def note_on_windows(shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return a note if the windows of *shards* have much of the source read again and again."""
    pieces = [piece for shard in shards for piece in shard.slices if piece.has_window]
    windows = Counter(piece.uri for piece in pieces)
    size = sum(piece.weight for piece in pieces)
    # Of n windows of equal size, number i has i others before it, which are read and skipped.
    read = sum(piece.weight * (windows[piece.uri] + 1) / 2 for piece in pieces)
    if read <= _WORTH_A_NOTE * size:
        return ()
    uri, count = windows.most_common(1)[0]
    note = (
        f"source.shard: {len(windows):,} compressed file(s) are cut by rows, and each shard reads its file "
        f"from the start: {read / size:,.1f} times as much reading in all, as {uri}, which is {count:,} "
        "shards. More rows in a shard, or smaller or uncompressed files, cost less"
    )
    return (note,)
