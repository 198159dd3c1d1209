"""Finds what `--fresh` removes from the sink: the output of the runs that it ends, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel, Sentinels
from batchrunner.checkpoint.commit import claim
from batchrunner.checkpoint.documents import sha256_of
from batchrunner.driver.sink_state import (
    OWNER,
    RETIRED,
    declaration_in,
    parts_in,
    refuse_foreign,
    shard_of,
)
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import DamagedOutputError, ForeignOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage


@dataclass(frozen=True, slots=True)
class StaleOutput:
    """Objects that have to leave the sink before the run goes on.

    Attributes:
        declaration: `_SUCCESS`, then the manifest: the order in which they are removed.
        parts: Parts of ended runs, which are removed.
        damaged: Parts that differ from what their sentinels say; all parts if the records of an
            ended run are damaged. They are moved to `_damaged/`: no record says what they hold.
        list_files: Whether parts list files, which are removed before them.
    """

    declaration: tuple[Entry, ...] = ()
    parts: tuple[Entry, ...] = ()
    damaged: tuple[Entry, ...] = ()
    list_files: bool = False


@dataclass(frozen=True)
class _EndedRun:
    """A run that a `--fresh` ended, as its own records describe it."""

    checkpoint: Checkpoint

    @cached_property
    def run_uid(self) -> str | None:
        """The uid of the run; None if neither its record nor its sentinels give exactly one."""
        with contextlib.suppress(DamagedOutputError):
            if record := self.checkpoint.run():
                return record.run_uid
        named = {sentinel.run_uid for sentinel in self.sentinels.good.values()}
        return named.pop() if len(named) == 1 else None

    @cached_property
    def is_whole(self) -> bool:
        """Whether the records that describe its parts (run, plan, schema) can all be read."""
        try:
            record = self.checkpoint.run()
            self.checkpoint.generations()
            self.checkpoint.schemas()
        except DamagedOutputError:
            return False
        return record is not None

    @cached_property
    def lists_files(self) -> bool:
        """Whether its parts list files, as its plan says; as its sentinels do if that is damaged."""
        with contextlib.suppress(DamagedOutputError):
            if plan := self.checkpoint.generations():
                return plan[0].facts.part_format.publishes_files
        return any(sentinel.files for sentinel in self.sentinels.good.values())

    @cached_property
    def sentinels(self) -> Sentinels:
        return self.checkpoint.sentinels()

    def sentinel(self, part: str) -> Sentinel | None:
        """Return the sentinel of *part*; None if it is missing, damaged or of another run."""
        sentinel = self.sentinels.good.get(shard_of(part))
        if sentinel is None or sentinel.part != part:
            return None
        return sentinel if self.run_uid in (None, sentinel.run_uid) else None

    def has_bad_sentinel(self, part: str) -> bool:
        """Return whether *part* has a sentinel that is damaged or that names another run."""
        shard = shard_of(part)
        sentinel = self.sentinels.good.get(shard)
        names_it = sentinel is not None and sentinel.part == part
        is_there = names_it or shard in self.sentinels.damaged
        return is_there and self.sentinel(part) is None


class ClearedRuns:
    """The runs of a checkpoint that a `--fresh` ended, or is about to end.

    Their records are kept longer than their output: without them, a part that one of their workers
    publishes late could not be distinguished from a foreign one.
    """

    def __init__(self, runs: Sequence[Checkpoint], *, sink: Storage) -> None:
        self._runs, self._sink = [_EndedRun(run) for run in runs], sink

    def __bool__(self) -> bool:
        return bool(self._runs)

    def include(self, run_uid: str) -> bool:
        """Return whether one of these runs has the uid *run_uid*."""
        return any(run.run_uid == run_uid for run in self._runs)

    def stale_output(self, entries: Sequence[Entry]) -> StaleOutput:
        """Select from *entries*, the full listing of the sink, what a new run has to remove.

        Reads the parts that no sentinel names.

        Raises:
            ForeignOutputError: A part, `_SUCCESS` or the manifest belongs to none of these runs.
        """
        parts = parts_in(entries)
        sentinels = {name: self._sentinel(name) for name in parts}
        unnamed = [name for name, sentinel in sentinels.items() if sentinel is None]
        bad = {name for name in unnamed if any(r.has_bad_sentinel(name) for r in self._runs)}
        # The worker of a part without a sentinel may have died or published late: compare bytes.
        foreign = [n for n in unnamed if n not in bad and not self.wrote(parts[n])]
        declaration = declaration_in(entries)
        is_ours = len(parts) > len(foreign) if parts else self._own_the_sink()
        if declaration and not self._declared(declaration, is_ours=is_ours):
            foreign += [entry.key for entry in declaration]
        if foreign:
            refuse_foreign(self._sink.uri, foreign)
        damaged = bad | {n for n, s in sentinels.items() if s and s.bytes != parts[n].size}
        # Where records are damaged, the others may be wrong as well: move all parts, delete none.
        if parts and not all(run.is_whole for run in self._runs):
            damaged = set(parts)
        retired = (e for e in self._sink.list(RETIRED) if self._sentinel(e.key.rpartition("/")[2]))
        return StaleOutput(
            declaration=declaration,
            parts=(*(e for n, e in parts.items() if n not in damaged), *retired),
            damaged=tuple(parts[name] for name in sorted(damaged)),
            list_files=bool(parts) and any(run.lists_files for run in self._runs),
        )

    def late_parts(self, parts: Mapping[str, Entry], *, plan: StoredPlan) -> dict[str, Entry]:
        """Return those *parts* that belong to no shard of *plan* and that one of these runs wrote.

        Workers that outlived the `--fresh` published them. Reads each part that it returns.
        """
        names = {plan.facts.part(shard.id) for shard in (*plan.active, *plan.retired)}
        return {n: entry for n, entry in parts.items() if n not in names and self.wrote(entry)}

    def wrote(self, entry: Entry) -> bool:
        """Return whether one of these runs published exactly the bytes of the part *entry*.

        Reads the part if a sentinel or an intent of one of these runs names it.
        """
        return any(
            (claim.bytes, claim.sha256) == (entry.size, sha256_of(self._sink, entry))
            for claim in self._claims(entry.key)
        )

    def remove(self, part: str, *, check: Callable[[], None]) -> bool:
        """Remove *part* if one of these runs wrote it; return whether its name is free now.

        *check*, called before the removal, raises if another driver took over and may need *part*.
        """
        entry = self._sink.head(part)
        if entry is None:
            return True
        if not self.wrote(entry):
            return False
        check()  # after the read, which takes time; only what was read is deleted
        return not self._sink.delete_exactly([entry])

    def _claims(self, part: str) -> Iterator[Sentinel]:
        """Yield the sentinel of *part*, stored or as in its intent, of each run that has one."""
        for run in self._runs:
            if run.run_uid is not None:
                with contextlib.suppress(ForeignOutputError, ObjectNotFoundError):
                    yield claim(
                        part.partition(".")[0],
                        part,
                        run_uid=run.run_uid,
                        sink=self._sink,
                        checkpoint=run.checkpoint,
                    )

    def _sentinel(self, part: str) -> Sentinel | None:
        return next((found for run in self._runs if (found := run.sentinel(part))), None)

    def _declared(self, declaration: Sequence[Entry], *, is_ours: bool) -> bool:
        """Return whether one of these runs wrote *declaration*, the `_SUCCESS` and the manifest.

        A declaration that names no run belongs to the run that wrote the parts, or that owns the
        sink if there are none; *is_ours* says whether one of these runs did.
        """
        named = {uid for entry in declaration if (uid := _run_uid(self._sink.get(entry.key)))}
        uids = {run.run_uid for run in self._runs}
        return named <= uids if named else is_ours

    def _own_the_sink(self) -> bool:
        owner = _run_uid(self._sink.get(OWNER)) if self._sink.head(OWNER) else None
        return owner is not None and self.include(owner)


def _run_uid(declaration: bytes) -> str | None:
    """Return the uid of the run that a document of the sink names; None if it names none."""
    try:
        fields: Any = orjson.loads(declaration)
        uid = fields["run_uid"]
    except (ValueError, TypeError, KeyError):
        return None
    return uid if isinstance(uid, str) and uid else None
