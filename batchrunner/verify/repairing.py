"""Repair: moves damage to `_damaged/`, so that the next session computes those shards again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.checkpoint.bundles import listed_files
from batchrunner.driver.retiring import shared
from batchrunner.driver.session import Session, Stop, open_session
from batchrunner.driver.sink_state import DAMAGED, MANIFEST, SOURCES, SUCCESS
from batchrunner.errors import LeaseHeldError
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.storage import Entry, Storage
from batchrunner.verify.checks import NONE, Checks
from batchrunner.verify.document_check import rebuilt_document
from batchrunner.verify.evidence import Evidence, gather
from batchrunner.verify.findings import (
    HOPELESS,
    MOVED_ASIDE,
    RECOMPUTED,
    Finding,
    FindingKind,
    Verification,
)
from batchrunner.verify.verifying import Watch, verify_run


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair.

    Attributes:
        found: The result of the verification that the repair began with.
        to_recompute: Ids of the shards that the next run computes again.
        moved: Names of the objects that were moved to `_damaged`, before the move.
        rebuilt: Keys of documents that were rebuilt from the others.
        hopeless: Findings that cannot be repaired.
    """

    found: Verification
    to_recompute: Sequence[int] = ()
    moved: Sequence[str] = ()
    rebuilt: Sequence[str] = ()
    hopeless: Sequence[Finding] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {**asdict(self), "found": self.found.to_dict()}


def repair(
    spec: BatchSpec,
    *,
    checks: Checks = NONE,
    watch: Watch = lambda _done, _all: None,
    stop: Stop | None = None,
) -> Repair:
    """Verify the run of *spec*, move damaged parts to `_damaged`, and delete their sentinels.

    The next run computes those shards again, and with them the shards that retried their dead
    letters. A damaged document is moved, too, if the run can go on without it. If other documents
    prove its content, it is rebuilt, and a copy of its bytes is kept in `_damaged`. No object with
    rows is deleted.

    Idempotent: wherever a repair dies, the next `verify` finds the remaining damage, and the next run
    computes the shards whose parts were moved.

    Raises:
        InvalidSpecError: *checks* are not possible for this spec.
        LeaseHeldError: A driver runs, or took over during the repair.
        ObjectNotFoundError: There is no run.
        StorageError: An object cannot be listed, read or moved.
    """
    checks.check_possible(spec)
    run = RunLocation.of(spec)
    # Under the lease: beside a driver, a repair would move parts that are being committed.
    with open_session(run.checkpoint, stop=stop or Stop(max_runtime=None)) as session:
        session.log_event("repair_began")  # also where it finds nothing, it is no run that ended
        result = verify_run(run, checks=checks, watch=watch)
        repairer = _Repairer(run, session)
        # Documents first: moving parts needs the plan, which is read again for that.
        hopeless = [f for f in result.findings if f.kind in HOPELESS and not repairer.rebuild(f)]
        for finding in result.findings:
            if finding.kind is FindingKind.SPARE:
                repairer.move_document(finding.part)
        to_recompute = _take_back_damage(repairer, run, result) if _has_bad_output(result) else []
    return Repair(
        result,
        to_recompute=sorted(shard.id for shard in to_recompute),
        moved=tuple(repairer.moved),
        rebuilt=tuple(repairer.rebuilt),
        hopeless=tuple(hopeless),
    )


def _has_bad_output(result: Verification) -> bool:
    """Return whether there are findings about more than documents.

    If there are, plan and sentinels can be read: with a damaged plan, `verify` checks documents only.
    """
    return any(f.kind not in HOPELESS and f.kind is not FindingKind.SPARE for f in result.findings)


def _take_back_damage(repairer: _Repairer, run: RunLocation, result: Verification) -> list[Shard]:
    """Move everything damaged to `_damaged`; return the shards that the next run computes again."""
    evidence = gather(run)
    # First: from here on, no reader may take the output for complete.
    repairer.declare_incomplete()
    damaged = {f.shard for f in result.findings if f.kind in RECOMPUTED and f.shard is not None}
    to_recompute = with_dependents(evidence.plan.active, damaged)
    for shard in to_recompute:
        repairer.take_back(evidence, shard)
    for finding in result.findings:
        if finding.kind in MOVED_ASIDE:
            repairer.move_orphan(evidence, finding.part)
    return to_recompute


def with_dependents(shards: Sequence[Shard], damaged: Collection[int]) -> list[Shard]:
    """Return the *damaged* shards and those that retried their dead letters, the latter first.

    The order matters: as long as a shard is damaged, a repair also takes back those that depend on it.
    If it were taken back first, a crash would leave their rows in the output, and the next run would
    compute these rows a second time.
    """
    # One pass is enough: a shard that retries dead letters is always planned after their shard.
    redo = set(damaged)
    for shard in shards:
        if shard.retries in redo:
            redo.add(shard.id)
    return [shard for shard in reversed(shards) if shard.id in redo]


class _Repairer:
    """Changes one run. Moves objects below `_damaged/<session>/`, where it overwrites none."""

    def __init__(self, run: RunLocation, session: Session) -> None:
        self.moved: list[str] = []
        self.rebuilt: list[str] = []
        self._run, self._session = run, session
        self._sink, self._records = run.sink, run.checkpoint.records

    def declare_incomplete(self) -> None:
        """Delete `_SUCCESS`, then the manifest: `_SUCCESS` must not exist without a manifest."""
        if self._delete(self._sink, SUCCESS):
            self._session.log_event("output_withdrawn")
        for key in (MANIFEST, SOURCES):
            self._delete(self._sink, key)

    def take_back(self, evidence: Evidence, shard: Shard) -> None:
        """Move part and dead letters of *shard* to `_damaged/`, then delete its sentinel.

        The sentinel goes last: as long as it exists without its part, every reader finds the shard
        damaged; after it, the shard is pending. In the other order, the next run could adopt the
        damaged part by its intent.
        """
        part, stem = evidence.part(shard), evidence.plan.facts.stem(shard.id)
        for path in self._files_of(evidence, shard) if evidence.files else ():
            self._move(self._sink, path)
        if part in evidence.data:
            self._move(self._sink, part)
        # By the shard's name, not by the name in the sentinel, which may be another shard's.
        for name in (name for name in evidence.dead_letters if name.startswith(f"{stem}.")):
            self._move(self._records, f"errors/{name}")
        self._delete(self._records, f"sentinels/{stem}.json")
        self._session.log_event("shard_taken_back", shard=shard.id, part=part)

    def _files_of(self, evidence: Evidence, shard: Shard) -> list[str]:
        """Return the files that the part of *shard* lists and no other one does: the shard may name others next.

        What a part that is gone or torn listed is in the checkpoint. Called before the part is moved and
        the sentinel deleted, which say which files and which record are its.
        """
        part, sentinel = evidence.part(shard), evidence.sentinels.get(shard.id)
        listed = self._run.checkpoint.paths_of(
            evidence.plan.facts.stem(shard.id), attempt=sentinel.files if sentinel else ""
        )
        if part in evidence.data:
            listed |= {file.path for file in listed_files(self._sink, evidence.data[part])}
        others = [s for s in evidence.sentinels.values() if s.part != part]
        return sorted((listed & evidence.files.keys()) - shared(listed, self._sink, others))

    def move_orphan(self, evidence: Evidence, name: str) -> None:
        """Move an object that belongs to no shard."""
        self._move(self._sink if name in evidence.data else self._records, name)

    def move_document(self, key: str) -> None:
        """Move a damaged document that the run can go on without."""
        self._move(self._records, key)
        self._session.log_event("record_put_aside", key=key)

    def rebuild(self, finding: Finding) -> bool:
        """Rebuild a damaged or missing document if the others prove it; return whether they do.

        Atomic: a copy of the damaged bytes is kept first, and then the new bytes replace them. The
        document is never absent meanwhile: another driver would take the run for a new one.
        """
        data = (
            rebuilt_document(self._run, finding.part)
            if finding.kind is FindingKind.RECORD
            else None
        )
        if data is None:
            return False
        if self._records.head(finding.part):
            copy = f"{DAMAGED}/{self._session.id}/{finding.part}"
            self._records.put(copy, self._records.get(finding.part))
        self._session.check()
        self._records.put(finding.part, data)
        self._session.log_event("record_made_again", key=finding.part)
        self.rebuilt.append(finding.part)
        return True

    def _move(self, storage: Storage, name: str) -> None:
        if entry := self._checked_entry(storage, name):
            storage.move(entry, f"{DAMAGED}/{self._session.id}/{name}")
            self.moved.append(name)

    def _delete(self, storage: Storage, name: str) -> bool:
        """Delete an object; return whether it was there."""
        entry = self._checked_entry(storage, name)
        if entry:
            storage.delete_exactly([entry])
        return entry is not None

    def _checked_entry(self, storage: Storage, name: str) -> Entry | None:
        """Return the entry of an object, then check that this driver may still change the run.

        In this order: if another driver takes over after the check, this one can change only the object
        of this entry, and not one that its successor wrote.
        """
        entry = storage.head(name)
        if self._session.stop.reason:
            raise LeaseHeldError(
                f"the repair stopped half-way ({self._session.stop.reason}); what is left is found "
                "again: batchrunner verify --repair SPEC"
            )
        self._session.check()
        return entry
