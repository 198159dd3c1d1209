"""Finds all files of a shard that cannot be read, once one of them could not.

The driver gives each of them a shard of its own, and those that can be read another one: a damaged file
costs itself, and not the thousands that share a shard with it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from batchrunner.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
)
from batchrunner.shard import Shard, Slice

_OUTAGE = 3
"""So many files in a row that storage does not answer for are not damaged: it is out of reach."""

_OF_THE_OBJECT = (ObjectNotFoundError, ObjectChangedError, StorageAccessError)


def unreadable_slices(
    shard: Shard, first: int, error: Exception, *, read: Callable[[Slice], None]
) -> tuple[int, ...]:
    """Return the numbers of the slices of *shard* that cannot be read.

    Empty if it has one slice or retries dead letters, and while storage is out of reach. The capability is
    not called.

    Args:
        shard: The shard; its slices before *first* could be read.
        first: The number of the slice that raised *error* when it was read.
        error: What it raised.
        read: Reads a slice to its end, and raises if that fails.
    """
    # Dead letters say their slice by its number in the shard that they are of: it cannot be divided.
    if len(shard.slices) == 1 or shard.retries is not None:
        return ()
    unreadable, silent = [first], int(_is_silence(error))
    for number, piece in enumerate(islice(shard.slices, first + 1, None), start=first + 1):
        try:
            read(piece)
        except Exception as other:  # noqa: BLE001 - as in `read_shards`: a file may hold anything
            unreadable.append(number)
            silent = silent + 1 if _is_silence(other) else 0
        else:
            silent = 0
        if silent == _OUTAGE:
            return ()
    return tuple(unreadable)


def _is_silence(error: Exception) -> bool:
    """Return whether storage failed, and did not say that it is for this one object."""
    return isinstance(error, StorageError) and not isinstance(error, _OF_THE_OBJECT)
