"""The stored plan: which shards there are, for ever. Parquet, one file a generation, append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import orjson

from batchrunner.errors import DamagedOutputError
from batchrunner.formats.naming import sink_suffix
from batchrunner.shard import Shard, Slicing

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 1
_METADATA = b"batchrunner"


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What the first plan decided for all that follow.

    Attributes:
        width: Digits of a shard's id in the name of its part.
        format: Of the parts.
        compression: Of the parts.
        unit: What new files are sharded by.
        count: How many of *unit* make a shard.
    """

    width: int
    format: str
    compression: str
    unit: str
    count: int

    def stem(self, shard_id: int) -> str:
        """Return the name of a shard's part without its suffix."""
        return f"part-{shard_id:0{self.width}d}"

    def part(self, shard_id: int) -> str:
        """Return the name of a shard's part."""
        return self.stem(shard_id) + sink_suffix(self.format, self.compression)


@dataclass(frozen=True, slots=True)
class Generation:
    """One file of the plan.

    Attributes:
        shards: The shards it adds.
        retired: Ids of earlier shards whose file changed or vanished; their parts don't count.
    """

    facts: PlanFacts
    shards: tuple[Shard, ...]
    retired: tuple[int, ...] = ()


def plan_to_bytes(generation: Generation) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = {field.name: getattr(generation.facts, field.name) for field in fields(PlanFacts)}
    header = {"version": FORMAT_VERSION, "retired": generation.retired, **facts}
    table = pa.table(_columns(generation.shards), schema=_schema())
    table = table.replace_schema_metadata({_METADATA: orjson.dumps(header)})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow is untyped


def plan_from_bytes(data: bytes, *, key: str) -> Generation:
    """Read a generation back.

    Raises:
        DamagedOutputError: The bytes are torn, foreign, or of a later version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without threads: a pool that is still starting when a short command ends aborts it.
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        header = orjson.loads(table.schema.metadata[_METADATA])
        version, retired = header.pop("version"), header.pop("retired")
        if version > FORMAT_VERSION:
            raise DamagedOutputError(
                f"{key} has format version {version}: use the later batchrunner"
            )
        facts = PlanFacts(**header)
        columns = {field.name: table.column(field.name).to_pylist() for field in fields(Shard)}
        columns["slicing"] = [Slicing(word) for word in columns["slicing"]]
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DamagedOutputError(f"{key} is damaged: it holds no whole plan") from error
    shards = (Shard(*values) for values in zip(*columns.values(), strict=True))
    return Generation(facts, tuple(shards), tuple(retired))


def _columns(shards: Sequence[Shard]) -> dict[str, list[object]]:
    return {field.name: [getattr(s, field.name) for s in shards] for field in fields(Shard)}


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = {"uri", "slicing", "identity"}
    types = {
        field.name: pa.string() if field.name in text else pa.int64() for field in fields(Shard)
    }
    return pa.schema(list(types.items()))
