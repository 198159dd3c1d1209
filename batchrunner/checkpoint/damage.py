"""Records that a run cannot do without, when they are damaged: what they are called, and the ways out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from batchrunner.errors import DamagedOutputError

if TYPE_CHECKING:
    import pyarrow as pa

_WAY_OUT = (
    "Nothing was changed. Bring it back; or `batchrunner verify --repair SPEC` moves it aside or makes "
    "it again, where the other records allow that; or `batchrunner run --fresh SPEC` starts over, and "
    "moves the parts to _damaged/, for without this record nobody can vouch for them."
)


@contextmanager
def ways_out_told() -> Iterator[None]:
    """Tell whoever meets a damaged record that a run cannot do without what to do about it."""
    try:
        yield
    except DamagedOutputError as error:
        raise DamagedOutputError(f"{error}\n{_WAY_OUT}") from error


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
