"""Verifies a run against its source and its checkpoint, with code that did not write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

from batchrunner.checkpoint import RunLocation
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.definition import RunDefinition
from batchrunner.driver.sink_state import SUCCESS
from batchrunner.errors import DamagedOutputError
from batchrunner.shard import Shard, Slice
from batchrunner.spec import BatchSpec, ErrorsSpec
from batchrunner.verify.checks import NONE, Checks, RowChecks, sound_shards
from batchrunner.verify.document_check import document_faults
from batchrunner.verify.evidence import Evidence, gather
from batchrunner.verify.findings import Finding, FindingKind, Verification
from batchrunner.verify.manifest_check import manifest_faults, sentinel_totals
from batchrunner.verify.part_check import sha256_of
from batchrunner.verify.replaying import refuse_other_code
from batchrunner.verify.shard_check import ShardCheck
from batchrunner.verify.source_changes import refuse_changed, with_current_files

Watch = Callable[[int, int], None]
"""Called with the number of shards checked so far, and the number of all shards."""

_AT_ONCE = 4
_WINDOW = 256
"""Shards given to the threads at once: for a million shards, `map` would make a million futures."""


def verify(
    spec: BatchSpec, *, checks: Checks = NONE, watch: Watch = lambda _done, _all: None
) -> Verification:
    """Check parts and checkpoint of the run of *spec* against each other and against the source.

    Changes nothing. Reads every part to its end, and every source file that still has the bytes
    that the run read, in bounded memory. A driver that runs meanwhile causes no findings. With
    *checks*, also compares keys or values, in shards without other findings.

    Raises:
        InvalidSpecError: *checks* are not possible for this spec.
        CannotStartError: *checks* need DuckDB, or the capability, which cannot be loaded.
        SpecChangedError: *checks* ask for a replay, and the capability is not that of the run.
        InputChangedError: *checks* compare rows, no committed shard has the file that it was made of,
            and there are no findings.
        ObjectNotFoundError: There is no run.
        StorageError: An object cannot be listed or read.
    """
    checks.check_possible(spec)
    return verify_run(RunLocation.of(spec), checks=checks, watch=watch)


def verify_run(run: RunLocation, *, checks: Checks, watch: Watch) -> Verification:
    """Verify *run*, as `verify` does, without checking that *checks* are possible."""
    if run.checkpoint.is_starting_over():
        return Verification((), ("a driver began to start over; the next run finishes that",))
    try:
        evidence = gather(run)
    except DamagedOutputError:
        if damaged := tuple(document_faults(run)):
            return Verification(damaged)
        raise  # repaired between the two reads: the run must not pass as ok without a check
    definition = RunDefinition(run.spec, checks.capability)
    # Before the parts are read: hours of reading should not end in a refusal.
    if checks.replay is not None:
        refuse_other_code(definition, run, evidence)
    evidence = with_current_files(run, evidence)
    check = ShardCheck(run, evidence)
    findings = [*_shard_faults(evidence, check, watch), *_run_faults(run, evidence, check)]
    findings += document_faults(run)
    totals = sentinel_totals(evidence)
    notes = [*_notes(evidence, check, totals, errors=run.spec.errors)]
    sound = sound_shards(evidence, findings)
    if checks.asks_for_rows and not findings:
        refuse_changed(sound, evidence.changed)
    rows = RowChecks(run, evidence, checks)
    # A replay may change the state of the capability object: the object's next fingerprint must not
    # take that for changed code.
    with nullcontext() if checks.replay is None else definition.at_work():
        findings += rows.faults(sound, watch=watch)
    notes += rows.notes
    findings.sort(key=lambda finding: (finding.shard is None, finding.shard or 0))
    return Verification(
        findings=tuple(findings),
        notes=tuple(notes),
        shards=len(evidence.plan.active),
        committed=len(evidence.sentinels),
        rows_in=totals.rows_in,
        rows_out=totals.rows_out,
        rows_failed=totals.rows_failed,
        left_out=len(rows.left_out),
        trial=evidence.trial,
    )


def _shard_faults(evidence: Evidence, check: ShardCheck, watch: Watch) -> Iterator[Finding]:
    shards, done = iter(evidence.plan.active), 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while window := list(islice(shards, _WINDOW)):
            for findings in pool.map(check.faults, window):
                done += 1
                watch(done, len(evidence.plan.active))
                yield from findings


def _notes(
    evidence: Evidence, check: ShardCheck, totals: Totals, *, errors: ErrorsSpec
) -> Iterator[str]:
    # A shard with a damaged sentinel has a finding, so it does not count as pending.
    pending = len(evidence.plan.active) - len(evidence.sentinels) - len(evidence.damaged)
    if pending and not evidence.is_finished:
        yield f"{pending:,} of {len(evidence.plan.active):,} shards are not committed yet"
    elif not evidence.is_finished and totals.rows_failed > errors.allowed(totals.rows_in):
        # Running again would compute nothing, and end in the same way.
        yield (
            f"every shard is committed, but too many rows failed: {totals.rows_failed:,} of "
            f"{totals.rows_in:,}, where errors.max_row_errors allows "
            f"{int(errors.allowed(totals.rows_in)):,}: fix what they fail for and run batchrunner "
            "retry --rows, or raise errors.max_row_errors and run once more"
        )
    elif not evidence.is_finished:
        yield "every shard is committed, but the output is not declared complete: run once more"
    if evidence.trial:
        yield f"a trial ({evidence.trial}): what it took of the source was checked, and no other row"
    for uri, why in sorted(evidence.changed.items()):
        yield f"{uri}: {why}"
    for uri, why in sorted(check.uncounted.items()):
        yield f"{uri}: its rows were not counted: {why}"
    if evidence.is_finished and (unlisted := check.files.unlisted()):
        yield (
            f"{len(unlisted):,} files in the sink are listed by no part, such as {unlisted[0]}: they were there "
            "before, or are of a run that ended or of a part without a record of its paths"
        )
    for folder in evidence.other_runs:
        yield f"{folder}/ is the output of another run: a recursive read of the sink includes it"


def _run_faults(run: RunLocation, evidence: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield the defects of the run as a whole."""
    yield from _orphans(run, evidence)
    for key in evidence.strays:
        yield Finding(FindingKind.ORPHAN, key, "a sentinel of no shard of the plan")
    yield from _coverage_faults(run, evidence, check)
    if evidence.is_finished:
        yield from _uncommitted(evidence)
        if len(evidence.sentinels) == len(evidence.plan.active):
            yield from manifest_faults(run, evidence)


def _orphans(run: RunLocation, evidence: Evidence) -> Iterator[Finding]:
    """Yield objects that look like data and belong to no shard."""
    ours = {evidence.part(shard) for shard in (*evidence.plan.active, *evidence.plan.retired)}
    by_size = defaultdict(list)
    for sentinel in evidence.sentinels.values():
        by_size[sentinel.bytes].append(sentinel)
    for name, entry in evidence.data.items():
        if name in ours:
            continue
        # Only an object with the size of a part can be its copy, so only such objects are read.
        same_size = by_size.get(entry.size, ())
        sha256 = sha256_of(run.sink, entry) if same_size else ""
        original = next((s.part for s in same_size if s.sha256 == sha256), None)
        if original is None:
            yield Finding(FindingKind.ORPHAN, name, "it belongs to no shard of the plan")
        else:
            yield Finding(
                FindingKind.DUPLICATE, name, f"it has the bytes of {original}: rows stand twice"
            )


def _uncommitted(evidence: Evidence) -> Iterator[Finding]:
    """Yield the shards because of which `_SUCCESS` must not exist."""
    for shard in evidence.plan.active:
        if shard.id not in evidence.sentinels and shard.id not in evidence.damaged:
            why = f"the shard is not committed, and {SUCCESS} says that all are"
            yield Finding(FindingKind.SUCCESS, evidence.part(shard), why, shard.id)
    for shard in evidence.plan.retired:
        if evidence.part(shard) in evidence.data:
            why = f"its source file changed or vanished, and {SUCCESS} stands over its old rows"
            yield Finding(FindingKind.SUCCESS, evidence.part(shard), why, shard.id)


def _coverage_faults(run: RunLocation, evidence: Evidence, check: ShardCheck) -> Iterator[Finding]:
    """Yield the files whose shards leave a gap, overlap or leave out the last rows."""
    by_file: dict[str, list[tuple[int, Slice]]] = defaultdict(list)
    for shard in evidence.plan.active:
        for piece in shard.slices if shard.retries is None else ():
            by_file[piece.uri].append((shard.id, piece))
    # With `source.limit`, the last shards end before their file does, on purpose; the shards of a
    # trial also leave gaps.
    limited = run.spec.source.limit is not None or bool(evidence.trial)
    for uri, slices in by_file.items():
        slices.sort(key=lambda one: (one[1].start, one[1].skip))
        why = "" if evidence.trial else _gap(slices)
        # Shards without a gap may still end before the file does.
        if not why and not limited and (rows := check.rows_after(slices[-1][1])):
            why = f"{rows:,} rows come after the last shard"
        if why:
            yield Finding(FindingKind.PLAN, uri, why)
    yield from _retried_twice(evidence)


def _gap(slices: Sequence[tuple[int, Slice]]) -> str:
    """Return where *slices* of one file, each with its shard, leave a gap or overlap; "" if they do not."""
    end, unit, before = 0, slices[0][1].slicing, None
    for shard, piece in slices:
        if piece.slicing is not unit:  # a slice that `source.limit` cuts off is counted in rows
            return ""
        if before is not None and (piece.start, piece.stop) == (before.start, before.stop):
            if before.take is None or piece.skip != before.skip + before.take:
                return f"shard {shard} begins at row {piece.skip:,} of {unit} {piece.start:,}-{piece.stop:,}"
        elif piece.start != end or piece.skip:
            return f"shard {shard} begins at {piece.start:,} {unit}, and not at {end:,}"
        elif before is not None and before.take is not None:
            return f"the rows after {before} are in no shard"
        end, before = piece.stop, piece
    return ""


def _retried_twice(evidence: Evidence) -> Iterator[Finding]:
    """Yield the shards that retry dead letters that an earlier shard retries already."""
    origins: dict[int, Shard] = {}
    for shard in evidence.plan.active:
        if shard.retries is not None:
            first = origins.setdefault(shard.retries, shard)
            if first is not shard:
                why = f"it retries the rows of shard {shard.retries}, as shard {first.id} does"
                yield Finding(FindingKind.PLAN, evidence.part(shard), why, shard.id)
