"""Checks the manifest against the sentinels that it sums up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.checkpoint import RunLocation
from batchrunner.checkpoint.damage import schema_from_bytes
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.moving import former_uris, place_of
from batchrunner.driver.sink_state import MANIFEST, SOURCES, SUCCESS
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.shard import Shard
from batchrunner.storage import Storage
from batchrunner.verify.comparing import same
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.sources_check import SourcesError, sources_in

if TYPE_CHECKING:
    import pyarrow as pa


def manifest_faults(run: RunLocation, evidence: Evidence) -> Iterator[Finding]:
    """Yield the fields of the manifest that disagree with the sentinels."""
    if evidence.manifest is None:
        yield Finding(FindingKind.MANIFEST, MANIFEST, f"it is gone, and {SUCCESS} stands")
        return
    try:
        manifest: Any = orjson.loads(evidence.manifest)
    except ValueError as error:
        yield Finding(FindingKind.MANIFEST, MANIFEST, f"it is no JSON: {error}")
        return
    expected = _expected(evidence)
    if evidence.plan.facts.part_format.keeps_schema:
        try:
            expected["schema"] = _columns(run.checkpoint.records, run.spec.sink.schema_)
        except DamagedOutputError:  # `document_faults` reports the damaged schema
            return
    if any(len(shard.slices) > 1 for shard in evidence.plan.active):
        try:
            expected |= {"version": 2, "sources": sources_in(run, evidence)}
        except SourcesError as error:
            yield Finding(FindingKind.MANIFEST, SOURCES, str(error))
            return
    _rename_moved_sources(manifest, expected, run, evidence)
    for why in _differences(expected, manifest):
        yield Finding(FindingKind.MANIFEST, MANIFEST, why)


def sentinel_totals(evidence: Evidence) -> Totals:
    """Return the sums of the sentinels. A row that was retried counts once.

    This does not call `Totals.of`, whose sums the manifest was written with.
    """
    committed = [
        (shard, s) for shard in evidence.plan.active if (s := evidence.sentinels.get(shard.id))
    ]
    retried = sum(s.rows_in for shard, s in committed if shard.retries is not None)
    return Totals(
        rows_in=sum(s.rows_in for _, s in committed) - retried,
        rows_out=sum(s.rows_out for _, s in committed),
        rows_failed=sum(s.rows_failed for _, s in committed) - retried,
        bytes_out=sum(s.bytes for _, s in committed),
    )


def _expected(evidence: Evidence) -> dict[str, Any]:
    """Return the manifest that follows from the sentinels, without a schema."""
    totals = sentinel_totals(evidence)
    sentinels = [(shard, evidence.sentinels[shard.id]) for shard in evidence.plan.active]
    parts = [
        {
            "part": sentinel.part,
            "rows": sentinel.rows_out,
            "bytes": sentinel.bytes,
            "sha256": sentinel.sha256,
            **_slice_of(shard),
        }
        for shard, sentinel in sentinels
    ]
    return {
        "version": 1,
        "run_uid": evidence.run_uid if parts else "",
        "rows_in": totals.rows_in,
        "rows_out": totals.rows_out,
        "rows_failed": totals.rows_failed,
        "bytes": totals.bytes_out,
        "parts": parts,
    }


def _slice_of(shard: Shard) -> dict[str, Any]:
    if len(shard.slices) > 1:
        return {"files": len(shard.slices)}
    (piece,) = shard.slices
    where: dict[str, Any] = {"start": piece.start, "stop": piece.stop}
    if (piece.skip, piece.take) != (0, None):
        where |= {"skip": piece.skip, "take": piece.take}
    return {"source": piece.uri, "slicing": str(piece.slicing), **where}


def _rename_moved_sources(
    manifest: Any, expected: dict[str, Any], run: RunLocation, evidence: Evidence
) -> None:
    """Rewrite sources in *manifest* to their present URIs: moving a run keeps its manifest."""
    parts = manifest.get("parts") if isinstance(manifest, dict) else None
    listed = parts if isinstance(parts, list) else ()
    for ours, theirs in zip(expected["parts"], listed, strict=False):
        if isinstance(theirs, dict) and theirs.get("source") != ours.get("source"):
            former = former_uris(ours["source"], evidence.places, here=place_of(run.spec))
            if theirs.get("source") in former:
                theirs["source"] = ours["source"]


def _differences(expected: dict[str, Any], manifest: Any) -> Iterator[str]:
    if not isinstance(manifest, dict) or not isinstance(manifest.get("parts"), list):
        yield "it is no manifest"
        return
    for key in sorted(expected.keys() | manifest.keys()):
        if key != "parts" and not same(expected.get(key), manifest.get(key)):
            yield f"{key} is {manifest.get(key)!r}; the sentinels come to {expected.get(key)!r}"
    if len(expected["parts"]) != len(manifest["parts"]):
        yield f"it lists {len(manifest['parts']):,} parts of {len(expected['parts']):,}"
        return
    for ours, theirs in zip(expected["parts"], manifest["parts"], strict=True):
        if ours != theirs:
            yield f"its entry of {ours['part']} is not what the sentinel says"


def _columns(records: Storage, declared: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return name and type of each column, in the form of a manifest; [] if there is no schema.

    Raises:
        DamagedOutputError: The recorded schema cannot be read.
    """
    schema = _declared(declared) if declared else _recorded(records)
    fields = [] if schema is None else list(schema)
    return [{"name": field.name, "type": str(field.type)} for field in fields]


def _declared(declared: Mapping[str, Any]) -> pa.Schema:
    from batchrunner.formats.declared import as_written, declared_schema

    return as_written(declared_schema(declared))


def _recorded(records: Storage) -> pa.Schema | None:
    keys = ["schema.arrow", *(entry.key for entry in records.list("schema"))]
    try:
        return schema_from_bytes(records.get(keys[-1]), key=keys[-1])
    except ObjectNotFoundError:
        return None
