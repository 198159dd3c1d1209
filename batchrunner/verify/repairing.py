"""Damage moved out of the way, so that the next run makes those shards again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.driver.session import Session, Stop, open_session
from batchrunner.driver.sink_state import DAMAGED, MANIFEST, SUCCESS
from batchrunner.errors import LeaseHeldError
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import BatchSpec
from batchrunner.storage import Entry, Storage
from batchrunner.verify.checks import NONE, Checks
from batchrunner.verify.evidence import Evidence, gather
from batchrunner.verify.findings import ASIDE, HOPELESS, REDONE, Finding, FindingKind, Verification
from batchrunner.verify.rebuilding import made_again
from batchrunner.verify.verifying import Watch, verify_place


@dataclass(frozen=True, slots=True)
class Repair:
    """What was found, and what was done about it.

    Attributes:
        found: The damage.
        redone: Ids of the shards that the next run makes again.
        moved: What was moved to `_damaged`, by its name before.
        rebuilt: Records that were made again from what else there is, likewise.
        hopeless: What nothing here can mend.
    """

    found: Verification
    redone: Sequence[int] = ()
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
    """Verify the run of *spec*; move what is damaged to `_damaged`, and take its sentinels away.

    A damaged record that the run can do without is moved as well; one that the rest proves is made
    again, and its bytes are kept in `_damaged`. With the others nothing else is looked at before.

    The next run makes those shards again, and with them the shards that tried again the rows that
    they had set aside. No object that holds rows is deleted. Wherever it dies: what is damaged is
    found again by the next `verify`, or is made again by the next run.

    Raises:
        InvalidSpecError: Such *checks* are not possible.
        LeaseHeldError: A driver runs, or one took over meanwhile.
        ObjectNotFoundError: There is no run.
        StorageError: Something cannot be listed, read or moved.
    """
    checks.check_possible(spec)
    place = RunLocation.of(spec)
    with open_session(place.checkpoint, stop=stop or Stop(max_runtime=None)) as session:
        found = verify_place(place, checks=checks, watch=watch)
        moving = _Moving(place, session)
        hopeless = [f for f in found.findings if f.kind in HOPELESS and not moving.rebuild(f)]
        for finding in found.findings:
            if finding.kind is FindingKind.SPARE:
                moving.put_record_aside(finding.part)
        redone = _mend(moving, place, found) if _has_bad_output(found) else []
    return Repair(
        found,
        redone=sorted(shard.id for shard in redone),
        moved=tuple(moving.moved),
        rebuilt=tuple(moving.rebuilt),
        hopeless=tuple(hopeless),
    )


def _has_bad_output(found: Verification) -> bool:
    """Tell whether more than records is damaged; then the records that this takes are whole."""
    return any(f.kind not in HOPELESS and f.kind is not FindingKind.SPARE for f in found.findings)


def _mend(moving: _Moving, place: RunLocation, found: Verification) -> list[Shard]:
    """Move what is damaged away; return the shards that are to be made again."""
    seen = gather(place)
    # First of all: from here on nobody may take the output for complete.
    moving.declare_incomplete()
    damaged = {f.shard for f in found.findings if f.kind in REDONE and f.shard is not None}
    redone = with_dependents(seen.plan.active, damaged)
    for shard in redone:
        moving.take_back(seen, shard)
    for finding in found.findings:
        if finding.kind in ASIDE:
            moving.put_aside(seen, finding.part)
    return redone


def with_dependents(shards: Sequence[Shard], damaged: Collection[int]) -> list[Shard]:
    """Return the *damaged* of *shards*, each after those that tried again the rows it set aside.

    That order matters: as long as a shard counts as damaged, so do those that depend on it. Were
    it taken back first, a crash would leave their rows in the output, and the run would make them
    a second time.
    """
    # A shard of dead letters is always younger than the shard that set them aside.
    redo = set(damaged)
    for shard in shards:
        if shard.slicing is Slicing.DEAD_LETTERS and shard.start in redo:
            redo.add(shard.id)
    return [shard for shard in reversed(shards) if shard.id in redo]


class _Moving:
    """Moves objects of one run, each under a name of this session: nothing is overwritten."""

    def __init__(self, place: RunLocation, session: Session) -> None:
        self.moved: list[str] = []
        self.rebuilt: list[str] = []
        self._place, self._session = place, session
        self._sink, self._records = place.sink, place.checkpoint.records

    def declare_incomplete(self) -> None:
        """Take `_SUCCESS` away, then the manifest."""
        self._delete(self._sink, SUCCESS)
        self._delete(self._sink, MANIFEST)

    def take_back(self, seen: Evidence, shard: Shard) -> None:
        """Move part and dead letters of *shard* away, then remove its sentinel.

        The sentinel goes last: as long as it stands without its part, the shard is damaged for
        everyone to see; without it, the shard is pending. A part that stood without its sentinel
        would be sealed again by the next run, if its note fits.
        """
        part, stem = seen.part(shard), seen.plan.facts.stem(shard.id)
        if part in seen.data:
            self._move(self._sink, part)
        # By their own name, not by that in the sentinel: it may be a copy of another shard's.
        for name in (name for name in seen.dead_letters if name.startswith(f"{stem}.")):
            self._move(self._records, f"errors/{name}")
        self._delete(self._records, f"sentinels/{stem}.json")
        self._session.log_event("shard_taken_back", shard=shard.id, part=part)

    def put_aside(self, seen: Evidence, name: str) -> None:
        """Move an object away that belongs to no shard."""
        self._move(self._sink if name in seen.data else self._records, name)

    def put_record_aside(self, key: str) -> None:
        """Move a record away that the run can do without."""
        self._move(self._records, key)
        self._session.log_event("record_put_aside", key=key)

    def rebuild(self, finding: Finding) -> bool:
        """Make a record again that is damaged or gone, if what else there is proves it; tell whether.

        Atomic: the new bytes take the place of the damaged ones, of which a copy is kept first. There
        is no instant without the record, when another driver would take the run for a new one.
        """
        data = made_again(self._place, finding.part) if finding.kind is FindingKind.RECORD else None
        if data is None:
            return False
        if self._records.head(finding.part):
            aside = f"{DAMAGED}/{self._session.id}/{finding.part}"
            self._records.put(aside, self._records.get(finding.part))
        self._session.check()
        self._records.put(finding.part, data)
        self._session.log_event("record_made_again", key=finding.part)
        self.rebuilt.append(finding.part)
        return True

    def _move(self, storage: Storage, name: str) -> None:
        if there := self._seen(storage, name):
            storage.move(there, f"{DAMAGED}/{self._session.id}/{name}")
            self.moved.append(name)

    def _delete(self, storage: Storage, name: str) -> None:
        if there := self._seen(storage, name):
            storage.delete_exactly([there])

    def _seen(self, storage: Storage, name: str) -> Entry | None:
        """Look at an object, then see that this driver may still touch what it saw."""
        there = storage.head(name)
        if self._session.stop.reason:
            raise LeaseHeldError(
                f"the repair stopped half-way ({self._session.stop.reason}); what is left is found "
                "again: batchrunner verify --repair"
            )
        self._session.check()
        return there
