"""The row checks of `verify`, made on request: compare keys, and replay shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.errors import InvalidSpecError
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import RECOMPUTED, Finding
from batchrunner.verify.key_check import KeyCheck
from batchrunner.verify.key_table import need_duckdb
from batchrunner.verify.replaying import Replay, chosen
from batchrunner.verify.source_changes import is_changed


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks that `verify` makes on request: they cost more, or suit only some capabilities.

    Attributes:
        keys: Columns that together identify a row: each key must be in the output as often as in the
            source. For capabilities that return one row, with the same key, for each row.
        replay: Share of the committed shards to run again, above 0 and at most 1; None for none.
        capability: The function or class itself, if the spec names none.
    """

    keys: tuple[str, ...] = ()
    replay: float | None = None
    capability: Any = None

    @property
    def asks_for_rows(self) -> bool:
        """Whether rows are compared. That needs the source files as the run read them."""
        return bool(self.keys) or self.replay is not None

    def check_possible(self, spec: BatchSpec) -> None:
        """Check that a run of *spec* can be checked in this way.

        Raises:
            InvalidSpecError: The spec rules a check out, or lacks what it needs.
            CannotStartError: DuckDB, which compares keys, is not installed.
        """
        if self.keys:
            _check_keys(self.keys, spec)
            need_duckdb()
        if self.replay is not None:
            _check_replay(self.replay, spec, has_capability=self.capability is not None)


NONE = Checks()
"""No row is compared: bytes, counts and documents only."""


def _check_keys(keys: tuple[str, ...], spec: BatchSpec) -> None:
    if len(set(keys)) < len(keys):
        raise InvalidSpecError(f"a key column is named twice: {', '.join(keys)}; name each once")
    left_out = [key for key in keys if spec.source.columns and key not in spec.source.columns]
    if left_out:
        raise InvalidSpecError(
            f"{left_out[0]!r} cannot be a key: source.columns leaves that column out; name another one"
        )


def _check_replay(share: float, spec: BatchSpec, *, has_capability: bool) -> None:
    if not 0 < share <= 1:
        raise InvalidSpecError(f"the share to replay must be above 0 and at most 1, not {share:g}")
    capability = spec.called
    if spec.capability is None and not has_capability:
        raise InvalidSpecError(
            "there is no capability to replay: give capability.target in the spec, or "
            "pass capability= in Python"
        )
    if capability.mode == "run":
        raise InvalidSpecError(
            "capability runs are not replayed, each would be one run more: verify without --replay"
        )
    if not capability.deterministic:
        raise InvalidSpecError(
            "--replay needs a capability that returns the same rows for the same rows; if yours does, "
            "set capability.deterministic: true"
        )


class RowChecks:
    """Runs the row checks of `verify` (`--key`, `--replay`) on one run.

    Attributes:
        notes: What was compared, and what could not be compared; a line each.
        left_out: Ids of shards whose rows a check should have compared, and could not.
    """

    def __init__(self, run: RunLocation, evidence: Evidence, checks: Checks) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._run, self._evidence, self._checks = run, evidence, checks

    def faults(
        self, shards: Sequence[Shard], *, watch: Callable[[int, int], None]
    ) -> Iterator[Finding]:
        """Yield the defects of *shards*. Leaves out shards whose source file changed.

        Raises the errors of `verify`.
        """
        if self._checks.asks_for_rows:
            self.left_out |= {s.id for s in shards if is_changed(s, self._evidence.changed)}
            shards = [shard for shard in shards if shard.id not in self.left_out]
        if self._checks.keys:
            done = count(1)
            keys = KeyCheck(self._run, self._evidence, names=self._checks.keys)
            yield from keys.faults(shards, step=lambda: watch(next(done), len(shards)))
            self.notes += keys.notes
            self.left_out |= keys.left_out
        if self._checks.replay is not None:
            some = chosen(shards, self._checks.replay, run_uid=self._evidence.run_uid)
            replay = Replay(self._run, self._evidence, capability=self._checks.capability)
            yield from replay.faults(some, watch=watch)
            self.notes += replay.notes
            self.left_out |= replay.left_out


def sound_shards(evidence: Evidence, findings: Iterable[Finding]) -> list[Shard]:
    """Return the committed shards without *findings*.

    A shard that retried dead letters is returned only if the shard with these dead letters has no
    findings either: its rows are found in the source by the positions in the dead letters.
    """
    damaged = {finding.shard for finding in findings if finding.kind in RECOMPUTED}
    sound = {shard_id for shard_id in evidence.sentinels if shard_id not in damaged}
    return [
        shard
        for shard in evidence.plan.active
        if shard.id in sound and (shard.retries is None or shard.retries in sound)
    ]
