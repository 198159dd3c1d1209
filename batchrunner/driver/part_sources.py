"""`_manifest_sources`: which slice of which file is in which part, beside a manifest with packed parts.

In JSON, a million files would make a manifest of 150 MB that each session has to build and compare.
The manifest has a hash of the rows instead, which follows from the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.array_buffers import int_array, text_array
from batchrunner.checkpoint import PlanFacts
from batchrunner.checkpoint.plan_table import content_hash, table_of
from batchrunner.driver.sink_state import SOURCES
from batchrunner.shard import Shard
from batchrunner.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

_HASH = b"xxh3"
_OF_SLICE = ("slicing", "start", "stop", "skip", "take")


@dataclass(frozen=True, slots=True)
class PartSources:
    """The slices of the parts of a run.

    Attributes:
        table: Columns `part`, `source`, `slicing`, `start`, `stop`, `skip` and `take`, in the order of the
            parts.
        hash: XXH3-128 of its values, in hex.
    """

    table: pa.Table
    hash: str

    @classmethod
    def of(cls, shards: Sequence[Shard], facts: PlanFacts) -> PartSources | None:
        """Return the slices of *shards*; None if each has one, which the manifest names itself."""
        import pyarrow as pa

        if all(len(shard.slices) == 1 for shard in shards):
            return None
        plan = table_of(shards)
        numbers = [n for n, shard in enumerate(shards) for _ in range(len(shard.slices))]
        names = text_array([facts.part(shard.id) for shard in shards]).take(int_array(numbers))
        columns = [names, plan.column("uri"), *(plan.column(name) for name in _OF_SLICE)]
        table = pa.Table.from_arrays(columns, names=["part", "source", *_OF_SLICE])
        return cls(table, content_hash(table))

    def in_manifest(self) -> dict[str, Any]:
        """Return what the manifest says of it."""
        return {"file": SOURCES, "rows": len(self.table), "xxh3": self.hash}

    def to_bytes(self) -> bytes:
        """Return the file, whose bytes depend on the version of Arrow."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        buffer = pa.BufferOutputStream()
        table = self.table.replace_schema_metadata({_HASH: self.hash})
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow is untyped

    def is_stored(self, sink: Storage) -> bool:
        """Return whether *sink* has the file. Reads the hash in its footer, not its rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        entry = sink.head(SOURCES)
        if entry is None:
            return False
        with sink.open(entry) as file:
            try:
                metadata = pq.ParquetFile(file).metadata.metadata or {}
            except (pa.ArrowException, OSError):
                return False
        return bool(metadata.get(_HASH) == self.hash.encode())
