"""What a `--fresh` takes out of the sink: the output of the runs that it ends, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel, Sentinels
from batchrunner.checkpoint.commit import adopt, sha256_of
from batchrunner.driver.sink_state import (
    MANIFEST,
    RETIRED,
    SUCCESS,
    parts_in,
    refuse_foreign,
    shard_of,
)
from batchrunner.errors import DamagedOutputError, ForeignOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage


@dataclass(frozen=True, slots=True)
class InTheWay:
    """What stands in the sink and has to go before the run goes on.

    Attributes:
        signs: `_SUCCESS`, then the manifest: the order in which they go.
        parts: Output of ended runs, which is removed.
        damaged: What has the name of such a part but is not what its sentinel says, and all parts of
            a run whose records are damaged: moved aside, for nobody knows whose bytes they hold, or
            what else vouches for them.
    """

    signs: tuple[Entry, ...] = ()
    parts: tuple[Entry, ...] = ()
    damaged: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class _Ended:
    """One run that ended, and what it remembers."""

    checkpoint: Checkpoint

    @cached_property
    def run_uid(self) -> str | None:
        """Its name; None when its record is gone or torn, and its sentinels do not agree on one."""
        with contextlib.suppress(DamagedOutputError):
            if record := self.checkpoint.run():
                return record.run_uid
        named = {sentinel.run_uid for sentinel in self.sentinels.good.values()}
        return named.pop() if len(named) == 1 else None

    @cached_property
    def is_whole(self) -> bool:
        """Tell whether what it was, and what its parts are, can be read."""
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
        """Return what it says of *part*, as far as that can be read."""
        found = self.sentinels.good.get(shard_of(part))
        if found is None or found.part != part or self.run_uid not in (None, found.run_uid):
            return None
        return found

    def is_confused(self, part: str) -> bool:
        """Tell whether there is a sentinel of *part*, but a damaged one, or one of another run."""
        shard = shard_of(part)
        found = self.sentinels.good.get(shard)
        is_of_it = shard in self.sentinels.damaged or (found is not None and found.part == part)
        return is_of_it and self.sentinel(part) is None


class ClearedRuns:
    """The runs of a checkpoint that a `--fresh` ended, or is about to end.

    Their records outlive their output: only they can tell a part that one of their workers
    published late from a part that nobody knows.
    """

    def __init__(self, runs: Sequence[Checkpoint], *, sink: Storage) -> None:
        self._runs, self._sink = [_Ended(run) for run in runs], sink

    def __bool__(self) -> bool:
        return bool(self._runs)

    def include(self, run_uid: str) -> bool:
        """Tell whether one of them has that name."""
        return any(run.run_uid == run_uid for run in self._runs)

    def in_the_way(self, entries: Sequence[Entry]) -> InTheWay:
        """Return which of *entries*, all of the sink, a new run has to take away.

        Raises:
            ForeignOutputError: Something is not of these runs.
        """
        parts = parts_in(entries)
        said = {name: self._said(name) for name in parts}
        confused = {n for n in parts if not said[n] and any(r.is_confused(n) for r in self._runs)}
        unknown = [n for n in parts if not said[n] and n not in confused]
        foreign = [name for name in unknown if not self.wrote(parts[name])]
        signs = [entry for entry in entries if entry.key in (SUCCESS, MANIFEST)]
        if signs and not self._declared(signs, is_ours=len(parts) > len(foreign)):
            foreign += [entry.key for entry in signs]
        if foreign:
            refuse_foreign(self._sink.uri, foreign)
        damaged = confused | {n for n, s in said.items() if s and s.bytes != parts[n].size}
        if parts and not all(run.is_whole for run in self._runs):
            damaged = set(parts)
        return InTheWay(
            signs=tuple(sorted(signs, key=lambda entry: entry.key != SUCCESS)),
            parts=(*(e for n, e in parts.items() if n not in damaged), *self._retired()),
            damaged=tuple(parts[name] for name in sorted(damaged)),
        )

    def wrote(self, entry: Entry) -> bool:
        """Tell whether the part *entry* is, byte for byte, what one of these runs published.

        Reads it, if one of them claims it.
        """
        return any(
            (said.bytes, said.sha256) == (entry.size, sha256_of(self._sink, entry))
            for said in self._claims(entry.key)
        )

    def remove(self, part: str, *, check: Callable[[], None]) -> bool:
        """Remove *part* if one of these runs wrote it; tell whether its name is free now.

        *check* raises once another driver has taken over, who may need what is there.
        """
        entry = self._sink.head(part)
        if entry is None:
            return True
        if not self.wrote(entry):
            return False
        check()
        return not self._sink.delete_exactly([entry])

    def _claims(self, part: str) -> Iterator[Sentinel]:
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

    def _said(self, part: str) -> Sentinel | None:
        return next((said for run in self._runs if (said := run.sentinel(part))), None)

    def _retired(self) -> list[Entry]:
        return [e for e in self._sink.list(RETIRED) if self._said(e.key.rpartition("/")[2])]

    def _declared(self, signs: Sequence[Entry], *, is_ours: bool) -> bool:
        """Tell whether one of these runs declared the output complete.

        A sign that names no run is that of whoever wrote the parts.
        """
        named = {uid for entry in signs if (uid := _run_uid(self._sink.get(entry.key)))}
        uids = {run.run_uid for run in self._runs}
        return named <= uids if named else is_ours


def _run_uid(sign: bytes) -> str | None:
    """Return whose `_SUCCESS` or manifest it is; None when it does not say."""
    try:
        found: Any = orjson.loads(sign)
        uid = found["run_uid"]
    except (ValueError, TypeError, KeyError):
        return None
    return uid if isinstance(uid, str) and uid else None
