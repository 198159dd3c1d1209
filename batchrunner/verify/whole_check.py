"""The output as a whole: nothing in it twice, nothing foreign, and its summary true."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from batchrunner.errors import DamagedOutputError
from batchrunner.formats.naming import PARQUET
from batchrunner.plan.moving import former_uris, place_of
from batchrunner.plan.output import MANIFEST, SUCCESS
from batchrunner.shard import Shard, Slicing
from batchrunner.verify.evidence import Evidence, Place
from batchrunner.verify.findings import Finding, Kind
from batchrunner.verify.part_check import sha256_of
from batchrunner.verify.shard_check import ShardCheck
from batchrunner.verify.sink_columns import columns_of


@dataclass(frozen=True, slots=True)
class Totals:
    """Rows of a run, from its sentinels; those tried again count once."""

    rows_in: int
    rows_out: int
    rows_failed: int
    bytes: int


def totals(seen: Evidence) -> Totals:
    """Add up the sentinels."""
    found = [(shard, s) for shard in seen.plan.active if (s := seen.sentinels.get(shard.id))]
    again = sum(s.rows_in for shard, s in found if shard.slicing is Slicing.LETTERS)
    return Totals(
        rows_in=sum(s.rows_in for _, s in found) - again,
        rows_out=sum(s.rows_out for _, s in found),
        rows_failed=sum(s.rows_failed for _, s in found) - again,
        bytes=sum(s.bytes for _, s in found),
    )


def whole_faults(place: Place, seen: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield what is wrong beyond single shards."""
    yield from _strangers(place, seen)
    for key in seen.strays:
        yield Finding(Kind.ORPHAN, key, "a sentinel of no shard of the plan")
    yield from _uncovered(place, seen, check)
    if seen.is_finished:
        yield from _half_done(seen)
        if len(seen.sentinels) == len(seen.plan.active):
            yield from _summary(place, seen)


def _strangers(place: Place, seen: Evidence) -> Iterator[Finding]:
    ours = {seen.part(shard) for shard in (*seen.plan.active, *seen.plan.retired)}
    by_size = defaultdict(list)
    for sentinel in seen.sentinels.values():
        by_size[sentinel.bytes].append(sentinel)
    for name, entry in seen.data.items():
        if name in ours:
            continue
        twins = by_size.get(entry.size, ())
        sha256 = sha256_of(place.sink, entry) if twins else ""
        twin = next((s.part for s in twins if s.sha256 == sha256), None)
        if twin is None:
            yield Finding(Kind.ORPHAN, name, "it belongs to no shard of the plan")
        else:
            yield Finding(Kind.DUPLICATE, name, f"it has the bytes of {twin}: rows stand twice")


def _half_done(seen: Evidence) -> Iterator[Finding]:
    for shard in seen.plan.active:
        if shard.id not in seen.sentinels and shard.id not in seen.damaged:
            why = f"the shard is not committed, and {SUCCESS} says that all are"
            yield Finding(Kind.SUCCESS, seen.part(shard), why, shard.id)
    for shard in seen.plan.retired:
        if seen.part(shard) in seen.data:
            why = f"its source file changed or vanished, and {SUCCESS} stands over its old rows"
            yield Finding(Kind.SUCCESS, seen.part(shard), why, shard.id)


def _summary(place: Place, seen: Evidence) -> Iterator[Finding]:
    if seen.manifest is None:
        yield Finding(Kind.MANIFEST, MANIFEST, f"it is gone, and {SUCCESS} stands")
        return
    try:
        found: Any = orjson.loads(seen.manifest)
    except ValueError as error:
        yield Finding(Kind.MANIFEST, MANIFEST, f"it is no JSON: {error}")
        return
    expected = _expected(seen)
    if seen.plan.facts.format == PARQUET:
        try:
            expected["schema"] = columns_of(place.checkpoint.records, place.spec.sink.schema_)
        except DamagedOutputError:  # a finding of its own
            return
    _bring_here(found, expected, place, seen)
    for why in _differences(expected, found):
        yield Finding(Kind.MANIFEST, MANIFEST, why)


def _expected(seen: Evidence) -> dict[str, Any]:
    found = totals(seen)
    sentinels = [(shard, seen.sentinels[shard.id]) for shard in seen.plan.active]
    parts = [
        {
            "part": sentinel.part,
            "rows": sentinel.rows_out,
            "bytes": sentinel.bytes,
            "sha256": sentinel.sha256,
            "source": shard.uri,
            "slicing": str(shard.slicing),
            "start": shard.start,
            "stop": shard.stop,
        }
        for shard, sentinel in sentinels
    ]
    return {
        "version": 1,
        "run_uid": seen.run_uid if parts else "",
        "rows_in": found.rows_in,
        "rows_out": found.rows_out,
        "rows_failed": found.rows_failed,
        "bytes": found.bytes,
        "parts": parts,
    }


def _bring_here(found: Any, expected: dict[str, Any], place: Place, seen: Evidence) -> None:
    """Take the sources of a manifest that was written where the run was before for what they are."""
    parts = found.get("parts") if isinstance(found, dict) else None
    for one, other in zip(
        expected["parts"], parts if isinstance(parts, list) else (), strict=False
    ):
        if isinstance(other, dict) and other.get("source") != one["source"]:
            former = former_uris(one["source"], seen.places, here=place_of(place.spec))
            if other.get("source") in former:
                other["source"] = one["source"]


def _differences(expected: dict[str, Any], found: Any) -> Iterator[str]:
    if not isinstance(found, dict) or not isinstance(found.get("parts"), list):
        yield "it is no manifest"
        return
    for key in sorted(expected.keys() | found.keys()):
        if key != "parts" and not _same(expected.get(key), found.get(key)):
            yield f"{key} is {found.get(key)!r}; the sentinels come to {expected.get(key)!r}"
    if len(expected["parts"]) != len(found["parts"]):
        yield f"it lists {len(found['parts']):,} parts of {len(expected['parts']):,}"
        return
    for one, other in zip(expected["parts"], found["parts"], strict=True):
        if one != other:
            yield f"what it says of {one['part']} is not what the sentinel says"


def _same(one: object, other: object) -> bool:
    return one == other and type(one) is type(other)


def _uncovered(place: Place, seen: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield where the shards of a file leave a gap or overlap, and rows that come after them all.

    With a limit the last shards end early, as they should.
    """
    by_file: dict[str, list[Shard]] = defaultdict(list)
    for shard in seen.plan.active:
        if shard.slicing is not Slicing.LETTERS:
            by_file[shard.uri].append(shard)
    limited = place.spec.source.limit is not None
    for uri, shards in by_file.items():
        why = _gap(shards)
        if not why and not limited and (rows := check.rows_after(shards[-1])):
            why = f"{rows:,} rows come after the last shard"
        if why:
            yield Finding(Kind.PLAN, uri, why)
    yield from _tried_twice(seen)


def _gap(shards: Sequence[Shard]) -> str:
    end, unit = 0, shards[0].slicing
    for shard in shards:
        if shard.slicing is not unit:  # the last rows of a limit are counted in rows
            return ""
        if shard.start != end:
            return f"shard {shard.id} begins at {shard.start:,} {unit}, and not at {end:,}"
        end = shard.stop
    return ""


def _tried_twice(seen: Evidence) -> Iterator[Finding]:
    origins: dict[int, Shard] = {}
    for shard in seen.plan.active:
        if shard.slicing is Slicing.LETTERS:
            first = origins.setdefault(shard.start, shard)
            if first is not shard:
                why = f"it tries the rows of shard {shard.start} again, as shard {first.id} does"
                yield Finding(Kind.PLAN, seen.part(shard), why, shard.id)
