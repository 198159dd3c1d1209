"""The stored plan: all shards of a run. One Parquet file for each generation, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import orjson
import xxhash

from batchrunner.checkpoint.plan_table import (
    ADDED,
    as_plan_table,
    content_hash,
    shards_in,
    table_of,
)
from batchrunner.errors import DamagedOutputError, NewerFormatError
from batchrunner.formats.contract import Format
from batchrunner.formats.registry import format_named, part_suffix
from batchrunner.shard import EarlyEnd, Shard

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 3
"""Version 2 had a row for each shard, where there is one for each slice now, no `modified`, `skip` and `take`, and no shards
that ended early; version 1 also had no checksum, no identities and no place."""

_METADATA = b"batchrunner"
_CHECK = "check"

_LAST_OF_JSON = 2
"""The last version whose checksum is of its columns as JSON."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What the first generation decided for all later ones.

    Attributes:
        width: Digits of a shard's id in the name of its part.
        format: Format of the parts.
        compression: Compression of the parts.
        unit: What new files are sharded by.
        count: How many of *unit* make a shard.
        pack: How many of *unit* whole files are packed into a shard; 0 for one file each, as before
            version 3 of the plan.
    """

    width: int
    format: str
    compression: str
    unit: str
    count: int
    pack: int = 0

    @property
    def part_format(self) -> Format:
        """The format of the parts."""
        return format_named(self.format).of_parts

    def stem(self, shard_id: int) -> str:
        """Return the name of a shard's part without its suffix."""
        return f"part-{shard_id:0{self.width}d}"

    def part(self, shard_id: int) -> str:
        """Return the name of a shard's part."""
        return self.stem(shard_id) + part_suffix(self.format, self.compression)


@dataclass(frozen=True, slots=True)
class RunPlace:
    """Where sink and checkpoint were when a generation was made, and its URIs were valid.

    Attributes:
        sink: URI of the sink; empty in a generation of format version 1.
        checkpoint: URI of the checkpoint; empty in a generation of format version 1.
    """

    sink: str = ""
    checkpoint: str = ""


@dataclass(frozen=True, slots=True)
class Generation:
    """One file of the plan: the shards that one session added and retired.

    Attributes:
        facts: What the first generation decided.
        shards: The shards it adds.
        retired: Ids of earlier shards whose file changed or vanished; their parts don't count.
        identities: By URI, the new identity of each file of earlier shards whose bytes are the same.
        ended: By id, where earlier shards end that were slow: the rest of them is in *shards*.
        place: Where sink and checkpoint were.
    """

    facts: PlanFacts
    shards: tuple[Shard, ...]
    retired: tuple[int, ...] = ()
    identities: Mapping[str, str] = field(default_factory=dict)
    place: RunPlace = RunPlace()
    ended: Mapping[int, EarlyEnd] = field(default_factory=dict)

    @property
    def changes_output(self) -> bool:
        """Return whether an output that was complete before is no longer complete."""
        return bool(self.shards or self.retired)


def plan_key(number: int) -> str:
    """Return the key of generation *number*."""
    return f"plan/{number:04d}.parquet"


def plan_to_bytes(generation: Generation) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, buffer = table_of(generation.shards), pa.BufferOutputStream()
    header = {
        "version": FORMAT_VERSION,
        "retired": generation.retired,
        "identities": dict(generation.identities),
        "ended": {str(i): astuple(end) for i, end in generation.ended.items()},
        "place": asdict(generation.place),
        **{one.name: getattr(generation.facts, one.name) for one in fields(PlanFacts)},
    }
    header[_CHECK] = _checksum(header, content_hash(table))
    # Without statistics and Arrow schema: nothing reads them, they have no checksum, and they take space.
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        use_dictionary=["slicing"],
        write_page_checksum=True,
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_METADATA: orjson.dumps(header)})
    return buffer.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow is untyped


def plan_from_bytes(data: bytes, *, key: str) -> Generation:
    """Parse and check *data*, the generation under *key*.

    Raises:
        DamagedOutputError: The bytes are torn, foreign or edited.
        NewerFormatError: The generation is of a later format version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without threads: a pool that is still starting when a short command ends aborts it.
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read(use_threads=False)
        header = orjson.loads(table.schema.metadata[_METADATA])
        if (version := header["version"]) > FORMAT_VERSION:
            raise NewerFormatError(
                f"{key} has format version {version}: install the batchrunner that wrote it"
            )
        return _generation(header, as_plan_table(table), key=key)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise DamagedOutputError(f"{key} is damaged: it holds no whole plan") from error


def _generation(header: dict[str, Any], table: pa.Table, *, key: str) -> Generation:
    version = header["version"]
    check = header.pop(_CHECK, None)
    if (version, check) != (1, None) and check != _checksum(header, _content(table, version)):
        raise DamagedOutputError(f"{key} is damaged: it was changed after it was written")
    del header["version"]
    retired = tuple(header.pop("retired"))
    identities, place = header.pop("identities", {}), RunPlace(**header.pop("place", {}))
    ended = {int(i): EarlyEnd(*end) for i, end in header.pop("ended", {}).items()}
    shards = tuple(shards_in(table))
    return Generation(PlanFacts(**header), shards, retired, identities, place, ended)


def _content(table: pa.Table, version: int) -> Any:
    """Return what the checksum of a *version* has of the content."""
    if version > _LAST_OF_JSON:
        return content_hash(table)
    return {
        name: table.column(name).to_pylist() for name in table.column_names if name not in ADDED
    }


def _checksum(header: Mapping[str, Any], content: Any) -> str:
    """Return a hash of a generation's content that does not depend on how Parquet stores it."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps([header, content], option=orjson.OPT_SORT_KEYS))
