"""Finds damaged documents of the checkpoint, and rebuilds those that the other documents prove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import Generation, RunLocation, RunRecord
from batchrunner.checkpoint.damage import lost, lost_plan, schema_from_bytes
from batchrunner.checkpoint.documents import Quarantine
from batchrunner.checkpoint.incarnations import record_key
from batchrunner.checkpoint.plan_file import plan_from_bytes, plan_key, plan_to_bytes
from batchrunner.checkpoint.sentinel_index import index_from_bytes, sentinel_entries
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.moving import place_of
from batchrunner.driver.plan import Slicer, first_generation
from batchrunner.driver.sink_state import parts_in, shard_of
from batchrunner.driver.source_files import list_source, opener_of
from batchrunner.errors import DamagedOutputError, InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.partitions import partition_columns
from batchrunner.shard import Slice
from batchrunner.storage import Entry, Storage
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.reading import SourceReader

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_PLAN = plan_key(0)

_Parse = Callable[..., Any]
"""Parses a document from its bytes; raises `DamagedOutputError`, which names it by *key*."""


def document_faults(run: RunLocation) -> Iterator[Finding]:
    """Yield the damaged documents, except sentinels: `ShardCheck` checks those."""
    storage, records = run.checkpoint.storage, run.checkpoint.records
    if changes := list(records.list("changes")):  # the last one counts, else the run's own document
        yield from _damaged(records, changes[-1:], RunRecord.from_bytes, spare=True)
    else:
        key = record_key(run.checkpoint.incarnation)
        entry = storage.head(key)
        yield from _damaged(storage, [entry] if entry else [], RunRecord.from_bytes)
        if entry is None:
            yield Finding(FindingKind.RECORD, key, str(lost(storage, key)))
    yield from _plan_faults(run)
    yield from _damaged(records, records.list("quarantine"), Quarantine.from_bytes, spare=True)
    yield from _damaged(records, records.list("sentinel_index"), index_from_bytes, spare=True)
    first = records.head("schema.arrow")
    schemas = [*([first] if first else []), *records.list("schema")]
    yield from _damaged(records, schemas, schema_from_bytes)


def _damaged(
    records: Storage, entries: Iterable[Entry], parse: _Parse, *, spare: bool = False
) -> Iterator[Finding]:
    for entry in entries:
        if why := _damage(records, entry, parse):
            yield Finding(FindingKind.SPARE if spare else FindingKind.RECORD, entry.key, why)


def _damage(records: Storage, entry: Entry, parse: _Parse) -> str:
    """Return what is wrong with a document; "" if nothing is, or a running driver deleted it."""
    where = f"{records.uri}/{entry.key}"
    if entry.size > MAX_DOCUMENT_BYTES:
        # `get` refuses it with an error that may pass; this does not.
        return f"{where} is damaged: it has {entry.size:,} bytes, a record at most {MAX_DOCUMENT_BYTES:,}"
    try:
        parse(records.get(entry.key), key=where)
    except DamagedOutputError as error:
        return str(error)
    except ObjectNotFoundError:
        pass
    return ""


def _plan_faults(run: RunLocation) -> Iterator[Finding]:
    """Yield the first damaged generation of the plan.

    The run can go on without the last generation if none of its shards has a sentinel or a part: the
    next session plans the source again, as it is then.
    """
    records, first = run.checkpoint.records, 0
    entries = list(records.list("plan"))
    if missing := lost_plan(records, [entry.key for entry in entries]):
        yield Finding(FindingKind.RECORD, missing, str(lost(records, missing)))
        return
    for number, entry in enumerate(entries):
        faults = list(_damaged(records, [entry], plan_from_bytes))
        if not faults:
            first += len(plan_from_bytes(records.get(entry.key), key=entry.key).shards)
            continue
        spare = number == len(entries) - 1 and not _has_output(run, first)
        yield replace(faults[0], kind=FindingKind.SPARE if spare else FindingKind.RECORD)
        return  # the numbers of later shards follow from this generation


def _has_output(run: RunLocation, first: int) -> bool:
    """Return whether a shard from number *first* on has a sentinel or a part."""
    committed = sentinel_entries(run.checkpoint.records)
    published = map(shard_of, parts_in(run.sink.list()))
    return any(shard >= first for shard in (*committed, *published))


def rebuilt_document(run: RunLocation, key: str) -> bytes | None:
    """Return the content of the damaged document *key*; None if other documents do not prove it.

    Raises:
        StorageError: The storage failed, perhaps only for now.
    """
    if key == _FIRST_PLAN:
        plan = _first_plan(run)
        return None if plan is None else plan_to_bytes(plan)
    if key.startswith("schema"):
        schema = _schema(run, before=key)
        return None if schema is None else schema.serialize().to_pybytes()
    return None


def _first_plan(run: RunLocation) -> Generation | None:
    """Plan the source again; return that plan if the sentinels prove that it is the lost one."""
    records = run.checkpoint.records
    if any(entry.key != _FIRST_PLAN for entry in records.list("plan")):
        return None  # later generations depend on files as they were then
    if {shard_of(part) for part in parts_in(run.sink.list())} - sentinel_entries(records).keys():
        return None  # only a sentinel proves which slice a part was made of, and one has none
    try:
        files = list_source(run.spec.source).read_once().files
        plan = first_generation(run.spec, files, Slicer.of(run.spec))
    except (InvalidSpecError, ObjectNotFoundError):
        return None
    committed = run.checkpoint.sentinels().good
    proven = _proven(run, plan, {file.uri: file for file in files})
    return replace(plan, place=place_of(run.spec)) if proven >= committed.keys() else None


def _proven(run: RunLocation, plan: Generation, files: dict[str, SourceFile]) -> set[int]:
    """Return the shards of *plan* whose sentinel proves that their slice is the original one.

    It proves that if the slice has the bytes that were hashed, and as many rows as were read.
    """
    sentinels, proven = run.checkpoint.sentinels().good, set()
    source = SourceReader(run.spec.source)
    for shard in plan.shards:
        sentinel = sentinels.get(shard.id)
        if sentinel is None or sentinel.part != plan.facts.part(shard.id):
            continue
        hashes = sentinel.hashes_of(shard.slices)
        is_same = all(
            _has_hashed_bytes(run, piece, files[piece.uri], hashed)
            for piece, hashed in zip(shard.slices, hashes, strict=True)
        )
        if is_same and sum(map(source.count, shard.slices)) == sentinel.rows_in:
            proven.add(shard.id)
    return proven


def _has_hashed_bytes(run: RunLocation, piece: Slice, file: SourceFile, hashed: str) -> bool:
    source = run.spec.source
    # Columns that folders name are part of the rows, but of no hash.
    if not hashed or partition_columns(piece.uri, source.uris):
        return False
    with opener_of(run.spec)(file) as opened:
        return file.kind.reader.has_same_bytes(opened, piece, columns=source.columns, hashed=hashed)


def _schema(run: RunLocation, *, before: str) -> pa.Schema | None:
    """Return the schemas under keys before *before* and those of the parts, merged.

    None if the parts record none: they are CSV, or damaged.
    """
    import pyarrow as pa

    from batchrunner.formats.schemas import grown

    try:
        schemas = [*_schemas_before(run, before), *_schemas_of_parts(run)]
    except pa.ArrowInvalid:
        return None
    return reduce(grown, schemas) if schemas else None


def _schemas_before(run: RunLocation, key: str) -> Iterator[pa.Schema]:
    records = run.checkpoint.records
    if key == "schema.arrow":
        return
    earlier = [entry.key for entry in records.list("schema") if entry.key < key]
    for one in ["schema.arrow", *earlier]:
        yield schema_from_bytes(records.get(one), key=one)


def _schemas_of_parts(run: RunLocation) -> Iterator[pa.Schema]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = parts_in(run.sink.list())
    for _, sentinel in sorted(run.checkpoint.sentinels().good.items()):
        entry = parts.get(sentinel.part)
        if entry is None or not sentinel.rows_out or entry.size != sentinel.bytes:
            continue  # an empty part has no columns of its own; a missing or resized one is damaged
        with run.sink.open(entry) as file:
            schema = pq.read_schema(file)
        yield pa.schema([field.remove_metadata() for field in schema])
