"""What `verify` is asked to look at besides bytes, counts and records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec
from batchrunner.verify.key_table import need_duckdb


@dataclass(frozen=True, slots=True)
class Checks:
    """Checks that cost more, or that need to know more of the capability.

    Attributes:
        keys: Columns that name a row together: each key of the source has to be in the output as
            often as there. For capabilities that keep each row, and its key.
        replay: Share of the committed shards to run again, above 0 and at most 1; None for none.
        capability: The function or class itself, where the spec names none.
    """

    keys: tuple[str, ...] = ()
    replay: float | None = None
    capability: Any = None

    @property
    def asks_for_rows(self) -> bool:
        """Tell whether rows are to be compared, which needs the files that they were made of."""
        return bool(self.keys) or self.replay is not None

    def check_possible(self, spec: BatchSpec) -> None:
        """Refuse what cannot be asked of *spec*.

        Raises:
            InvalidSpecError: The spec has to say something first, or no such check is possible.
            CannotStartError: DuckDB is not installed, and keys are to be compared.
        """
        if self.keys:
            _check_keys(self.keys, spec)
            need_duckdb()
        if self.replay is not None:
            _check_replay(self.replay, spec, known=self.capability is not None)


NONE = Checks()
"""Bytes, counts and records only."""


def _check_keys(keys: tuple[str, ...], spec: BatchSpec) -> None:
    if len(set(keys)) < len(keys):
        raise InvalidSpecError(f"a key column is named twice: {', '.join(keys)}")
    left_out = [key for key in keys if spec.source.columns and key not in spec.source.columns]
    if left_out:
        raise InvalidSpecError(
            f"{left_out[0]!r} cannot be a key: source.columns leaves that column out"
        )


def _check_replay(share: float, spec: BatchSpec, *, known: bool) -> None:
    if not 0 < share <= 1:
        raise InvalidSpecError(f"the share to replay is {share:g}; it is above 0 and at most 1")
    capability = spec.called
    if spec.capability is None and not known:
        raise InvalidSpecError("there is no capability to replay: name one, or hand it over")
    if capability.mode == "run":
        raise InvalidSpecError("capability runs are not replayed: each would be one run more")
    if not capability.deterministic:
        raise InvalidSpecError(
            "only a capability that gives the same rows for the same rows can be replayed; if this "
            "one does, say so: capability: {target: ..., deterministic: true}"
        )
