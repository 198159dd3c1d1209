"""A run held against its source and its records, by code that took no part in writing it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from batchrunner.checkpoint import RunLocation
from batchrunner.driver.definition import RunDefinition
from batchrunner.driver.moving import former_uris, place_of
from batchrunner.driver.sink_state import MANIFEST, SUCCESS
from batchrunner.errors import DamagedOutputError
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import BatchSpec
from batchrunner.verify.checks import NONE, Checks
from batchrunner.verify.deep_check import DeepCheck, sound_shards
from batchrunner.verify.evidence import Evidence, gather
from batchrunner.verify.findings import Finding, FindingKind, Verification
from batchrunner.verify.part_check import sha256_of
from batchrunner.verify.record_check import record_faults
from batchrunner.verify.replaying import refuse_other_code
from batchrunner.verify.shard_check import ShardCheck
from batchrunner.verify.sink_data import columns_of
from batchrunner.verify.source_files import refuse_changed, with_files_of_now

Watch = Callable[[int, int], None]
"""Told how many shards are looked at, and how many there are."""

_AT_ONCE = 4
_WINDOW = 256


def verify(
    spec: BatchSpec, *, checks: Checks = NONE, watch: Watch = lambda _done, _all: None
) -> Verification:
    """Read source, parts and records of the run of *spec*, and tell what does not agree.

    Changes nothing. Reads every part from end to end, and every source file that has the bytes that
    were read, whatever its time; in bounded memory. A run at work meanwhile is no defect. With *checks*, also keys
    or values are compared, of the shards in which nothing else is wrong.

    Raises:
        InvalidSpecError: Such *checks* are not possible.
        CannotStartError: They need DuckDB, or the capability, which cannot be loaded.
        SpecChangedError: A replay is asked for, and the capability is not that of the run.
        InputChangedError: Rows are to be compared, no shard has the file that it was made of, and
            nothing else is wrong.
        ObjectNotFoundError: There is no run.
        StorageError: Something cannot be listed or read.
    """
    checks.check_possible(spec)
    return verify_place(RunLocation.of(spec), checks=checks, watch=watch)


def verify_place(place: RunLocation, *, checks: Checks, watch: Watch) -> Verification:
    """Do what `verify` does."""
    if place.checkpoint.is_starting_over():
        return Verification((), ("somebody began to start over; the next run finishes that",))
    try:
        seen = gather(place)
    except DamagedOutputError:
        if damaged := tuple(record_faults(place)):
            return Verification(damaged)
        raise  # it was put right between the two looks: not to be called sound unseen
    asked_for = RunDefinition(place.spec, checks.capability)
    if checks.replay is not None:
        refuse_other_code(asked_for, place, seen)
    seen = with_files_of_now(place, seen)
    check = ShardCheck(place, seen)
    findings = [*_by_shard(seen, check, watch), *whole_faults(place, seen, check)]
    findings += record_faults(place)
    notes = [*_notes(seen, check)]
    sound = sound_shards(seen, findings)
    if checks.asks_for_rows and not findings:
        refuse_changed(sound, seen.changed)
    more = DeepCheck(place, seen, checks)
    # What an object does to itself while it is replayed must not count as other code next time.
    with nullcontext() if checks.replay is None else asked_for.at_work():
        findings += more.faults(sound, watch=watch)
    notes += more.notes
    findings.sort(key=lambda finding: (finding.shard is None, finding.shard or 0))
    found = totals(seen)
    return Verification(
        findings=tuple(findings),
        notes=tuple(notes),
        shards=len(seen.plan.active),
        committed=len(seen.sentinels),
        rows_in=found.rows_in,
        rows_out=found.rows_out,
        rows_failed=found.rows_failed,
        left_out=len(more.left_out),
    )


def _by_shard(seen: Evidence, check: ShardCheck, watch: Watch) -> Iterator[Finding]:
    shards, done = iter(seen.plan.active), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while some := list(islice(shards, _WINDOW)):
            for findings in pool.map(check.faults, some):
                done += 1
                watch(done, len(seen.plan.active))
                yield from findings


def _notes(seen: Evidence, check: ShardCheck) -> Iterator[str]:
    pending = len(seen.plan.active) - len(seen.sentinels) - len(seen.damaged)
    if pending and not seen.is_finished:
        yield f"{pending:,} of {len(seen.plan.active):,} shards are not committed yet"
    elif not seen.is_finished:
        yield "every shard is committed, but the output is not declared complete: run once more"
    for uri, why in sorted(seen.changed.items()):
        yield f"{uri}: {why}"
    for uri, why in sorted(check.uncounted.items()):
        yield f"{uri}: its rows were not counted: {why}"
    for folder in seen.other_runs:
        yield f"{folder}/ is the output of another run: whoever reads the sink recursively has it, too"


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
    again = sum(s.rows_in for shard, s in found if shard.slicing is Slicing.DEAD_LETTERS)
    return Totals(
        rows_in=sum(s.rows_in for _, s in found) - again,
        rows_out=sum(s.rows_out for _, s in found),
        rows_failed=sum(s.rows_failed for _, s in found) - again,
        bytes=sum(s.bytes for _, s in found),
    )


def whole_faults(place: RunLocation, seen: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield what is wrong beyond single shards."""
    yield from _strangers(place, seen)
    for key in seen.strays:
        yield Finding(FindingKind.ORPHAN, key, "a sentinel of no shard of the plan")
    yield from _uncovered(place, seen, check)
    if seen.is_finished:
        yield from _half_done(seen)
        if len(seen.sentinels) == len(seen.plan.active):
            yield from _summary(place, seen)


def _strangers(place: RunLocation, seen: Evidence) -> Iterator[Finding]:
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
            yield Finding(FindingKind.ORPHAN, name, "it belongs to no shard of the plan")
        else:
            yield Finding(
                FindingKind.DUPLICATE, name, f"it has the bytes of {twin}: rows stand twice"
            )


def _half_done(seen: Evidence) -> Iterator[Finding]:
    for shard in seen.plan.active:
        if shard.id not in seen.sentinels and shard.id not in seen.damaged:
            why = f"the shard is not committed, and {SUCCESS} says that all are"
            yield Finding(FindingKind.SUCCESS, seen.part(shard), why, shard.id)
    for shard in seen.plan.retired:
        if seen.part(shard) in seen.data:
            why = f"its source file changed or vanished, and {SUCCESS} stands over its old rows"
            yield Finding(FindingKind.SUCCESS, seen.part(shard), why, shard.id)


def _summary(place: RunLocation, seen: Evidence) -> Iterator[Finding]:
    if seen.manifest is None:
        yield Finding(FindingKind.MANIFEST, MANIFEST, f"it is gone, and {SUCCESS} stands")
        return
    try:
        found: Any = orjson.loads(seen.manifest)
    except ValueError as error:
        yield Finding(FindingKind.MANIFEST, MANIFEST, f"it is no JSON: {error}")
        return
    expected = _expected(seen)
    if seen.plan.facts.part_format.keeps_schema:
        try:
            expected["schema"] = columns_of(place.checkpoint.records, place.spec.sink.schema_)
        except DamagedOutputError:  # a finding of its own
            return
    _bring_here(found, expected, place, seen)
    for why in _differences(expected, found):
        yield Finding(FindingKind.MANIFEST, MANIFEST, why)


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


def _bring_here(found: Any, expected: dict[str, Any], place: RunLocation, seen: Evidence) -> None:
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


def _uncovered(place: RunLocation, seen: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield where the shards of a file leave a gap or overlap, and rows that come after them all.

    With a limit the last shards end early, as they should.
    """
    by_file: dict[str, list[Shard]] = defaultdict(list)
    for shard in seen.plan.active:
        if shard.slicing is not Slicing.DEAD_LETTERS:
            by_file[shard.uri].append(shard)
    limited = place.spec.source.limit is not None
    for uri, shards in by_file.items():
        why = _gap(shards)
        if not why and not limited and (rows := check.rows_after(shards[-1])):
            why = f"{rows:,} rows come after the last shard"
        if why:
            yield Finding(FindingKind.PLAN, uri, why)
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
        if shard.slicing is Slicing.DEAD_LETTERS:
            first = origins.setdefault(shard.start, shard)
            if first is not shard:
                why = f"it tries the rows of shard {shard.start} again, as shard {first.id} does"
                yield Finding(FindingKind.PLAN, seen.part(shard), why, shard.id)
