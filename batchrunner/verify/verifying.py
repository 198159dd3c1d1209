"""A run held against its source and its records, by code that took no part in writing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

from batchrunner.errors import DamagedOutputError
from batchrunner.plan.asked_for import AskedFor
from batchrunner.spec import BatchSpec
from batchrunner.verify.checks import NONE, Checks
from batchrunner.verify.deep_check import DeepCheck, sound_shards
from batchrunner.verify.evidence import Evidence, Place, gather
from batchrunner.verify.findings import Finding, Verification
from batchrunner.verify.record_check import record_faults
from batchrunner.verify.replaying import refuse_other_code
from batchrunner.verify.shard_check import ShardCheck
from batchrunner.verify.source_files import refuse_changed, with_files_of_now
from batchrunner.verify.whole_check import totals, whole_faults

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
    return verify_place(Place.of(spec), checks=checks, watch=watch)


def verify_place(place: Place, *, checks: Checks, watch: Watch) -> Verification:
    """Do what `verify` does."""
    if place.checkpoint.is_starting_over():
        return Verification((), ("somebody began to start over; the next run finishes that",))
    try:
        seen = gather(place)
    except DamagedOutputError:
        if damaged := tuple(record_faults(place)):
            return Verification(damaged)
        raise  # it was put right between the two looks: not to be called sound unseen
    asked_for = AskedFor(place.spec, checks.capability)
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
