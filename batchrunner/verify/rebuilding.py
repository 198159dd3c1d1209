"""A damaged record made again from what else there is, where that proves what the record said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING

from batchrunner.checkpoint import Generation, RunLocation, Sentinel
from batchrunner.checkpoint.damage import schema_from_bytes
from batchrunner.checkpoint.plan_file import plan_key, plan_to_bytes
from batchrunner.checkpoint.sentinel_index import sentinel_entries
from batchrunner.driver.moving import place_of
from batchrunner.driver.plan import Slicer, first_generation
from batchrunner.driver.sink_state import parts_in, shard_of
from batchrunner.driver.source_files import SourceFile, list_source, opener_of
from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import format_named
from batchrunner.shard import Shard
from batchrunner.verify.counting import SourceRows

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_PLAN = plan_key(0)


def made_again(place: RunLocation, key: str) -> bytes | None:
    """Return what the damaged record under *key* of the run's records held, or None if nothing proves it.

    Raises:
        StorageError: Something cannot be read for a reason that may pass.
    """
    if key == _FIRST_PLAN:
        plan = _first_plan(place)
        return None if plan is None else plan_to_bytes(plan)
    if key.startswith("schema"):
        schema = _schema(place, before=key)
        return None if schema is None else schema.serialize().to_pybytes()
    return None


def _first_plan(place: RunLocation) -> Generation | None:
    """Cut the source again; the plan is the one that was if every committed shard is found in it."""
    records = place.checkpoint.records
    if any(entry.key != _FIRST_PLAN for entry in records.list("plan")):
        return None  # what came later was planned with files, and changes of files, of that time
    if {shard_of(part) for part in parts_in(place.sink.list())} - sentinel_entries(records).keys():
        return None  # a part whose sentinel is yet to come says less of what it was made of
    try:
        files = list_source(place.spec.source).read_once().files
        plan = first_generation(place.spec, files, Slicer.of(place.spec))
    except (InvalidSpecError, ObjectNotFoundError):
        return None
    committed = place.checkpoint.sentinels().good
    proven = _proven(place, plan, {file.uri: file for file in files})
    return replace(plan, place=place_of(place.spec)) if proven >= committed.keys() else None


def _proven(place: RunLocation, plan: Generation, files: dict[str, SourceFile]) -> set[int]:
    """Return the shards of *plan* whose sentinel says that they were made of just that slice.

    Its first bytes are those that were hashed, and it has as many rows as were read.
    """
    sentinels, found = place.checkpoint.sentinels().good, set()
    counts = SourceRows(place.spec.source)
    for shard in plan.shards:
        sentinel = sentinels.get(shard.id)
        if sentinel is None or sentinel.part != plan.facts.part(shard.id):
            continue
        is_same = _holds(place, shard, files[shard.uri], sentinel)
        if is_same and counts.of(shard) == sentinel.rows_in:
            found.add(shard.id)
    return found


def _holds(place: RunLocation, shard: Shard, file: SourceFile, sentinel: Sentinel) -> bool:
    source = place.spec.source
    # Folders that name columns decide rows, and are in no hash.
    if not sentinel.source_hash or partition_columns(shard.uri, source.uris):
        return False
    with opener_of(place.spec)(file) as opened:
        return format_named(file.kind.format).has_same_bytes(
            opened, shard, columns=source.columns, hashed=sentinel.source_hash
        )


def _schema(place: RunLocation, *, before: str) -> pa.Schema | None:
    """Return all columns that the parts have, added to those of the schemas before that one."""
    from batchrunner.formats.schemas import grown

    known = [*_schemas_before(place, before), *_schemas_of_parts(place)]
    return reduce(grown, known) if known else None


def _schemas_before(place: RunLocation, key: str) -> Iterator[pa.Schema]:
    records = place.checkpoint.records
    if key == "schema.arrow":
        return
    earlier = [entry.key for entry in records.list("schema") if entry.key < key]
    for one in ["schema.arrow", *earlier]:
        yield schema_from_bytes(records.get(one), key=one)


def _schemas_of_parts(place: RunLocation) -> Iterator[pa.Schema]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = parts_in(place.sink.list())
    for _, sentinel in sorted(place.checkpoint.sentinels().good.items()):
        entry = parts.get(sentinel.part)
        if entry is None or not sentinel.rows_out or entry.size != sentinel.bytes:
            continue  # it has no columns of its own, or is damaged itself
        with place.sink.open(entry) as file:
            schema = pq.read_schema(file)
        yield pa.schema([field.remove_metadata() for field in schema])
