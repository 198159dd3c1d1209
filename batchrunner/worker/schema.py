"""The one schema of a Parquet sink: declared, or fixed by the first part that has rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from batchrunner.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


class SinkSchema:
    """What all parts agree on. The checkpoint holds it, put there once by whoever came first."""

    def __init__(self, checkpoint: Checkpoint, *, declared: Mapping[str, str] | None) -> None:
        self._checkpoint = checkpoint
        self._known: pa.Schema | None = None
        self._next_look = 0.0
        if declared is not None:
            from batchrunner.formats.columns import declared_schema

            self._known = declared_schema(declared)

    def known_lately(self) -> pa.Schema | None:
        """As `known`, but look no more than once a second."""
        if self._known is None and time.monotonic() < self._next_look:
            return None
        self._next_look = time.monotonic() + 1.0
        return self.known()

    def look_again(self) -> None:
        """Let `known_lately` look the next time."""
        self._next_look = 0.0

    def known(self) -> pa.Schema | None:
        """Return the schema, or None when no part has fixed it yet."""
        if self._known is None:
            stored = self._checkpoint.schema()
            self._known = None if stored is None else _from_bytes(stored)
        return self._known

    def fix(self, proposed: pa.Schema) -> pa.Schema:
        """Return the schema; it is *proposed* when there was none and that has columns."""
        if self._known is None and len(proposed):
            plain = proposed.remove_metadata()
            self._known = _from_bytes(self._checkpoint.fix_schema(plain.serialize().to_pybytes()))
        return self.known() or proposed


def _from_bytes(data: bytes) -> pa.Schema:
    import pyarrow as pa

    return pa.ipc.read_schema(pa.BufferReader(data))
