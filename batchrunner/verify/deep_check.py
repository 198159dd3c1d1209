"""What is looked at when asked: keys and values, in shards of which bytes and records agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

from batchrunner.checkpoint import RunLocation
from batchrunner.shard import Shard, Slicing
from batchrunner.verify.checks import Checks
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import REDONE, Finding
from batchrunner.verify.key_check import KeyCheck
from batchrunner.verify.replaying import Replay, chosen


class DeepCheck:
    """Does the *checks* that were asked for.

    Attributes:
        notes: What was compared, and what could not be; a line each.
        left_out: Ids of shards of which something was asked for that could not be compared.
    """

    def __init__(self, place: RunLocation, seen: Evidence, checks: Checks) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._place, self._seen, self._checks = place, seen, checks

    def faults(
        self, shards: Sequence[Shard], *, watch: Callable[[int, int], None]
    ) -> Iterator[Finding]:
        """Yield what is wrong in *shards*; those whose file changed are left out.

        Raises as `verify` does.
        """
        if self._checks.asks_for_rows:
            self.left_out |= {s.id for s in shards if s.uri in self._seen.changed}
            shards = [shard for shard in shards if shard.id not in self.left_out]
        if self._checks.keys:
            done = count(1)
            keys = KeyCheck(self._place, self._seen, names=self._checks.keys)
            yield from keys.faults(shards, step=lambda: watch(next(done), len(shards)))
            self.notes += keys.notes
            self.left_out |= keys.left_out
        if self._checks.replay is not None:
            some = chosen(shards, self._checks.replay, run_uid=self._seen.run_uid)
            replay = Replay(self._place, self._seen, capability=self._checks.capability)
            yield from replay.faults(some, watch=watch)
            self.notes += replay.notes
            self.left_out |= replay.left_out


def sound_shards(seen: Evidence, findings: Iterable[Finding]) -> list[Shard]:
    """Return the committed shards in which nothing was found so far.

    One that tried dead letters again can be looked at only if those are whole, too.
    """
    damaged = {finding.shard for finding in findings if finding.kind in REDONE}
    sound = {shard_id for shard_id in seen.sentinels if shard_id not in damaged}
    return [
        shard
        for shard in seen.plan.active
        if shard.id in sound and (shard.slicing is not Slicing.DEAD_LETTERS or shard.start in sound)
    ]
