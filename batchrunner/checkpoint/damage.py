"""Records that a run cannot do without, when they are damaged: what they are called, and the ways out."""

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
    "record nobody can vouch for them."
)
_WAY_OUT = (
    "Nothing was changed. Bring it back; or `batchrunner verify --repair SPEC` moves it aside or makes "
    f"it again, where the other records allow that; or {_STARTS_OVER}"
)
_ONLY_WAY_OUT = (
    "Nothing was changed. Nothing can make it again: bring it back, from a backup; or "
    f"{_STARTS_OVER}"
)


@contextmanager
def ways_out_told(*, can_be_mended: bool = True) -> Iterator[None]:
    """Tell whoever meets a damaged record that a run cannot do without what to do about it."""
    try:
        yield
    except DamagedOutputError as error:
        way_out = _WAY_OUT if can_be_mended else _ONLY_WAY_OUT
        raise DamagedOutputError(f"{error}\n{way_out}") from error


def lost_plan(records: Storage, keys: Collection[str]) -> str | None:
    """Return the key of a file of the plan that is gone, though *keys* or a sentinel came after it.

    A session that died before it could store the first one has committed nothing.
    """
    if keys:
        return next((key for key in map(plan_key, range(len(keys))) if key not in keys), None)
    if not any(True for _ in records.list("sentinels")):
        return None
    # Looked at once more: a driver may have stored it, and committed, in between.
    return None if records.head(plan_key(0)) else plan_key(0)


def lost(records: Storage, key: str) -> DamagedOutputError:
    """Return the error that says of *key* that it is gone, while what came after it is there."""
    return DamagedOutputError(
        f"{records.uri}/{key} is gone, and records that came after it are there"
    )


def schema_from_bytes(data: bytes, *, key: str) -> pa.Schema:
    """Read a schema back.

    Raises:
        DamagedOutputError: The bytes are torn or foreign.
    """
    import pyarrow as pa

    try:
        return pa.ipc.read_schema(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedOutputError(f"{key} is damaged: it holds no whole schema") from error
