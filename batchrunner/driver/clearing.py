"""What a `--fresh` takes out of the sink: the output of the runs that it ends, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel, Sentinels
from batchrunner.checkpoint.commit import adopt, sha256_of
from batchrunner.driver.plan import StoredPlan
from batchrunner.driver.sink_state import (
    RETIRED,
    declaration_in,
    parts_in,
    refuse_foreign,
    shard_of,
)
from batchrunner.errors import DamagedOutputError, ForeignOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage


@dataclass(frozen=True, slots=True)
class StaleOutput:
    """Objects that have to leave the sink before the run goes on.

    Attributes:
        declaration: `_SUCCESS`, then the manifest: the order in which they go.
        parts: Output of ended runs, which is removed.
        damaged: Parts that differ from what their sentinels say, and all parts of a run whose
            records are damaged. They are moved aside: no record says what they hold.
    """

    declaration: tuple[Entry, ...] = ()
    parts: tuple[Entry, ...] = ()
    damaged: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class _EndedRun:
    """One run that a `--fresh` ended, read from its own records."""

    checkpoint: Checkpoint

    @cached_property
    def run_uid(self) -> str | None:
        """Its name; None when its record is gone or damaged, and its sentinels do not agree on one."""
        with contextlib.suppress(DamagedOutputError):
            if record := self.checkpoint.run():
                return record.run_uid
        named = {sentinel.run_uid for sentinel in self.sentinels.good.values()}
        return named.pop() if len(named) == 1 else None

    @cached_property
    def is_whole(self) -> bool:
        """Whether all of its records can be read that say what its parts are."""
        try:
            record = self.checkpoint.run()
            self.checkpoint.generations()
            self.checkpoint.schemas()
        except DamagedOutputError:
            return False
        return record is not None

    @cached_property
    def sentinels(self) -> Sentinels:
        return self.checkpoint.sentinels()

    def sentinel(self, part: str) -> Sentinel | None:
        """Return its sentinel of *part*; None when there is none, or not a good one of this run."""
        sentinel = self.sentinels.good.get(shard_of(part))
        if sentinel is None or sentinel.part != part:
            return None
        return sentinel if self.run_uid in (None, sentinel.run_uid) else None

    def has_bad_sentinel(self, part: str) -> bool:
        """Return whether there is a sentinel of *part*, but a damaged one, or one of another run."""
        shard = shard_of(part)
        sentinel = self.sentinels.good.get(shard)
        names_it = sentinel is not None and sentinel.part == part
        is_there = names_it or shard in self.sentinels.damaged
        return is_there and self.sentinel(part) is None


class ClearedRuns:
    """The runs of a checkpoint that a `--fresh` ended, or is about to end.

    Their records outlive their output: a part that one of their workers published late cannot be
    distinguished from a foreign one without them.
    """

    def __init__(self, runs: Sequence[Checkpoint], *, sink: Storage) -> None:
        self._runs, self._sink = [_EndedRun(run) for run in runs], sink

    def __bool__(self) -> bool:
        return bool(self._runs)

    def include(self, run_uid: str) -> bool:
        """Return whether one of them has that name."""
        return any(run.run_uid == run_uid for run in self._runs)

    def stale_output(self, entries: Sequence[Entry]) -> StaleOutput:
        """Return which of *entries*, all of the sink, a new run has to take away.

        Reads the parts that no sentinel names.

        Raises:
            ForeignOutputError: A part, `_SUCCESS` or the manifest is not of these runs.
        """
        parts = parts_in(entries)
        sentinels = {name: self._sentinel(name) for name in parts}
        unnamed = [name for name, sentinel in sentinels.items() if sentinel is None]
        bad = {name for name in unnamed if any(r.has_bad_sentinel(name) for r in self._runs)}
        # A part without a sentinel may be of a worker that died, or published late: read it.
        foreign = [n for n in unnamed if n not in bad and not self.wrote(parts[n])]
        declaration = declaration_in(entries)
        if declaration and not self._declared(declaration, is_ours=len(parts) > len(foreign)):
            foreign += [entry.key for entry in declaration]
        if foreign:
            refuse_foreign(self._sink.uri, foreign)
        damaged = bad | {n for n, s in sentinels.items() if s and s.bytes != parts[n].size}
        # With damaged records, the rest may be wrong as well: nothing of such a run is deleted.
        if parts and not all(run.is_whole for run in self._runs):
            damaged = set(parts)
        retired = (e for e in self._sink.list(RETIRED) if self._sentinel(e.key.rpartition("/")[2]))
        return StaleOutput(
            declaration=declaration,
            parts=(*(e for n, e in parts.items() if n not in damaged), *retired),
            damaged=tuple(parts[name] for name in sorted(damaged)),
        )

    def late_parts(self, parts: Mapping[str, Entry], *, plan: StoredPlan) -> dict[str, Entry]:
        """Return those of *parts* that are of no shard of *plan*, and that one of these runs wrote.

        A worker that outlived the `--fresh` published them. Reads each of them.
        """
        names = {plan.facts.part(shard.id) for shard in (*plan.active, *plan.retired)}
        return {n: entry for n, entry in parts.items() if n not in names and self.wrote(entry)}

    def wrote(self, entry: Entry) -> bool:
        """Return whether the part *entry* is, byte for byte, what one of these runs published.

        Reads the part if one of them claims it.
        """
        return any(
            (claim.bytes, claim.sha256) == (entry.size, sha256_of(self._sink, entry))
            for claim in self._claims(entry.key)
        )

    def remove(self, part: str, *, check: Callable[[], None]) -> bool:
        """Remove *part* if one of these runs wrote it; return whether its name is free now.

        *check* raises once another driver has taken over: the part may be needed by that one.
        """
        entry = self._sink.head(part)
        if entry is None:
            return True
        if not self.wrote(entry):
            return False
        check()  # after the part was read, which takes time; exactly what was read is removed
        return not self._sink.delete_exactly([entry])

    def _claims(self, part: str) -> Iterator[Sentinel]:
        """Yield the sentinels of *part*, as stored or as its intent says; one for each run at most."""
        for run in self._runs:
            if run.run_uid is not None:
                with contextlib.suppress(ForeignOutputError, ObjectNotFoundError):
                    yield adopt(
                        part.partition(".")[0],
                        part,
                        run_uid=run.run_uid,
                        sink=self._sink,
                        checkpoint=run.checkpoint,
                    )

    def _sentinel(self, part: str) -> Sentinel | None:
        return next((found for run in self._runs if (found := run.sentinel(part))), None)

    def _declared(self, declaration: Sequence[Entry], *, is_ours: bool) -> bool:
        """Return whether one of these runs declared the output complete.

        A declaration that names no run belongs to the run that wrote the parts: *is_ours* says
        whether that is one of these.
        """
        named = {uid for entry in declaration if (uid := _run_uid(self._sink.get(entry.key)))}
        uids = {run.run_uid for run in self._runs}
        return named <= uids if named else is_ours


def _run_uid(declaration: bytes) -> str | None:
    """Return the run that a `_SUCCESS` or manifest names; None for none."""
    try:
        fields: Any = orjson.loads(declaration)
        uid = fields["run_uid"]
    except (ValueError, TypeError, KeyError):
        return None
    return uid if isinstance(uid, str) and uid else None
