"""Errors for damaged documents that a run needs, with the ways out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchrunner.checkpoint.plan_file import plan_key
from batchrunner.errors import DamagedOutputError
from batchrunner.storage.contract import Storage

if TYPE_CHECKING:
    import pyarrow as pa

_STARTS_OVER = (
    "`batchrunner run --fresh SPEC` starts over, and moves the parts to _damaged/, for without this "
    "document nothing proves that this run wrote them."
)
_WAY_OUT = (
    "Nothing was changed. Bring it back; or `batchrunner verify --repair SPEC` moves it to _damaged/ or makes "
    f"it again, where the other documents allow that; or {_STARTS_OVER}"
)
_ONLY_WAY_OUT = (
    "Nothing was changed. Nothing can make it again: bring it back, from a backup; or "
    f"{_STARTS_OVER}"
)


@contextmanager
def with_ways_out(*, can_be_repaired: bool = True) -> Iterator[None]:
    """Add what the user can do to a `DamagedOutputError` that is raised inside the block.

    With *can_be_repaired*, that includes `batchrunner verify --repair`.
    """
    try:
        yield
    except DamagedOutputError as error:
        way_out = _WAY_OUT if can_be_repaired else _ONLY_WAY_OUT
        raise DamagedOutputError(f"{error}\n{way_out}") from error


def lost_plan(records: Storage, keys: Collection[str]) -> str | None:
    """Return the key of a missing file of the plan if a later file or a sentinel exists, else None.

    *keys* are those of the files that exist. A session that died before it could store the first file
    has committed nothing.
    """
    if keys:
        return next((key for key in map(plan_key, range(len(keys))) if key not in keys), None)
    if not any(True for _ in records.list("sentinels")):
        return None
    # Look again: a driver may have stored it, and committed, between the two listings.
    return None if records.head(plan_key(0)) else plan_key(0)


def lost(records: Storage, key: str) -> DamagedOutputError:
    """Return the error for a missing document *key* of a run that has later documents."""
    return DamagedOutputError(
        f"{records.uri}/{key} is gone, and documents that came after it are there"
    )


def schema_from_bytes(data: bytes, *, key: str) -> pa.Schema:
    """Return the Arrow schema in *data*, the document under *key*.

    Raises:
        DamagedOutputError: The bytes are torn or foreign.
    """
    import pyarrow as pa

    try:
        return pa.ipc.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedOutputError(f"{key} is damaged: it holds no whole schema") from error
