"""The runs of one checkpoint: the first, and one more for each `--fresh`.

Each run has its own record and its own folder of documents. A worker of an earlier run may live on for
seconds, or wake up after days: it writes where no later run looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from batchrunner.checkpoint.damage import lost, with_ways_out
from batchrunner.checkpoint.documents import RunRecord
from batchrunner.errors import LeaseHeldError, ObjectNotFoundError
from batchrunner.storage.below import Below
from batchrunner.storage.contract import Entry, Storage

CLEARING = "clearing.json"
"""Left by an older batchrunner that died during a `--fresh`: the next run starts over again."""

_RECORD = re.compile(r"run(?:-(\d{4,}))?\.json")
WORKER_LOGS = "logs"
"""Folder of the workers' logs, by session; at the root, for all runs of the checkpoint."""

_OF_A_RUN = {
    "sentinels": ("part-00000.json",),
    "sentinel_index": ("0.jsonl",),
    "quarantine": ("part-00000.json",),
    "attempts": ("0.json",),
    "errors": ("part-00000.0.jsonl", "part-00000.failed.00000001.0.jsonl"),
    "answers": ("part-00000.1-0.000000.jsonl",),
    "files": ("part-00000.0",),
    "paths": ("part-00000.0",),
    "recorded": ("0.json",),
    "changes": ("0001.json",),
    "schema": ("0001.arrow",),
    "plan": ("0000.parquet",),
}
"""The folders of one run's documents, with examples of the names in them."""

_SHARED = {
    "lease": ("00000001.json",),
    "sessions": ("0.jsonl", "0.stop"),
    WORKER_LOGS: ("0/host-1-0.log",),
}
"""The folders at the root, which all runs of the checkpoint share, with examples of the names in them."""

ReadBefore = dict[int, dict[Entry, Any]]
"""The documents that were read already, by run number and object. An object never changes."""


@dataclass(frozen=True, slots=True)
class Incarnations:
    """The runs that a listing of a checkpoint's root shows.

    Attributes:
        numbers: Numbers of the runs whose records exist, ascending: the last is the current run.
        is_half_cleared: Whether an older batchrunner died during a `--fresh`.
    """

    numbers: tuple[int, ...]
    is_half_cleared: bool


def incarnations_in(storage: Storage) -> Incarnations:
    """Return the runs of the checkpoint at *storage*: one listing."""
    keys = [entry.key for entry in storage.list()]
    numbers = sorted(int(match[1] or 0) for match in map(_RECORD.fullmatch, keys) if match)
    return Incarnations(tuple(numbers), CLEARING in keys)


def record_key(number: int) -> str:
    """Return the key of the record of run *number*; to create the record claims the number."""
    return f"run-{number:04d}.json" if number else "run.json"


def is_record_key(key: str) -> bool:
    """Return whether *key* is the key of a run's record."""
    return _RECORD.fullmatch(key) is not None


def folder(number: int) -> str:
    """Return the folder of the other documents of run *number*; "" is the root."""
    return f"run-{number:04d}" if number else ""


def example_keys() -> list[str]:
    """Return example keys of every kind that a checkpoint holds, for a first run and later ones.

    Names that begin with "." or "_" are left out: a source never reads files with such names.
    """
    of_a_run = ["schema.arrow", *_listed(_OF_A_RUN)]
    numbers = (0, 1, 12)
    keys = [CLEARING, *map(record_key, numbers), *_listed(_SHARED), *of_a_run]
    return keys + [f"{folder(number)}/{key}" for number in numbers[1:] for key in of_a_run]


def _listed(folders: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name}/{example}" for name, examples in folders.items() for example in examples]


def remove_records(storage: Storage, number: int) -> None:
    """Remove the documents of run *number*, its record last.

    Until the record is gone, the next driver finds the run. What `verify --repair` moved away stays,
    since it holds rows.
    """
    above = f"{folder(number)}/" if number else ""
    for name in _OF_A_RUN:
        storage.delete([entry.key for entry in storage.list(above + name)])
    storage.delete([f"{above}schema.arrow"])
    storage.delete([record_key(number)])


class RunDocuments:
    """One run of a checkpoint: its number, its record, and the changes that were accepted."""

    def __init__(
        self, storage: Storage, *, incarnation: int = 0, earlier: Sequence[int] = ()
    ) -> None:
        """Open run number *incarnation* of the checkpoint at *storage*.

        Attributes:
            storage: The root, which all its runs share: run records, leases, sessions, staged bytes.
            records: All other documents, of this run alone.
            earlier: Numbers of the runs that a `--fresh` ended and whose records still exist.
            is_half_cleared: Whether an older batchrunner died during a `--fresh`.
        """
        self.storage, self.incarnation, self.earlier = storage, incarnation, tuple(earlier)
        self.records: Storage = Below(storage, folder(incarnation)) if incarnation else storage
        self.is_half_cleared = False
        self._is_new = False
        """Whether a listing has shown that there is no run, so that `run` need not request its record."""
        self._read_before: ReadBefore = {}

    @classmethod
    def current(cls, storage: Storage, *, read_before: ReadBefore | None = None) -> Self:
        """Open the current run, the last one. Documents in *read_before* are not read again."""
        listed = incarnations_in(storage)
        *earlier, number = listed.numbers or (0,)
        checkpoint = cls(storage, incarnation=number, earlier=earlier)
        checkpoint.is_half_cleared = listed.is_half_cleared
        checkpoint._is_new = not listed.numbers
        checkpoint._read_before = {} if read_before is None else read_before
        return checkpoint

    def reopened(self) -> Self:
        """Open the run that is current now, without reading plan, sentinels and indexes again."""
        return type(self).current(self.storage, read_before=self._read_before)

    def next(self) -> Self:
        """Return the run that a `--fresh` begins after this one; nothing of it is stored yet."""
        checkpoint = type(self)(
            self.storage,
            incarnation=self.incarnation + 1,
            earlier=(*self.earlier, self.incarnation),
        )
        checkpoint.is_half_cleared = self.is_half_cleared
        return checkpoint

    def ended(self) -> list[Self]:
        """Return the runs that a `--fresh` ended and whose records still exist."""
        return [type(self)(self.storage, incarnation=number) for number in self.earlier]

    def check_not_ended(self) -> None:
        """Check that no `--fresh` has ended this run: it claims the next number first.

        Raises:
            ObjectNotFoundError: It was ended; what it writes to the sink would be in the way.
        """
        if self.storage.head(record_key(self.incarnation + 1)) is not None:
            raise ObjectNotFoundError(
                f"{self.storage.uri}: the run was started over meanwhile; run the same line again"
            )

    def is_starting_over(self) -> bool:
        """Return whether a `--fresh` was begun and has no plan yet: old output may still stand."""
        return self.is_half_cleared or (
            bool(self.earlier)
            and not any(True for name in ("plan", "sentinels") for _ in self.records.list(name))
        )

    def run(self) -> RunRecord | None:
        """Return the record of what was asked for last, or None when there is no run yet.

        Raises:
            DamagedOutputError: The record cannot be read; the message names the ways out.
        """
        where = f"{self.storage.uri}/{record_key(self.incarnation)}"
        if self._is_new:
            return None
        try:
            data = self.storage.get(record_key(self.incarnation))
        except ObjectNotFoundError:
            return None
        if changes := [entry.key for entry in self.records.list("changes")]:
            where = f"{self.records.uri}/{changes[-1]}"
            data = self.records.get(changes[-1])
        with with_ways_out(can_be_repaired=bool(changes)):
            return RunRecord.from_bytes(data, key=where)

    def refuse_without_record(self) -> None:
        """Raise if this run has a plan or sentinels, but no record, which is written before them.

        Raises:
            DamagedOutputError: The record is gone; the message names the way out.
        """
        if any(True for name in ("plan", "sentinels") for _ in self.records.list(name)):
            with with_ways_out(can_be_repaired=False):
                raise lost(self.storage, record_key(self.incarnation))

    def keep_number(self) -> None:
        """Put an empty record if this run's record is gone, so that no new run gets its number.

        The run has ended, and may have left parts. An empty record counts as damaged: no driver
        continues such a run, and its parts are moved aside.
        """
        if self._is_new:
            self.storage.put_if_absent({record_key(self.incarnation): b""})

    def begin(self, record: RunRecord) -> None:
        """Store the *record* of what is asked for, before the plan and before any shard runs.

        Raises:
            LeaseHeldError: Another driver was first.
        """
        self._is_new = False  # before the write: if its answer is lost, the record may be there
        create(self.storage, record_key(self.incarnation), record.to_bytes())

    def withdraw(self, record: RunRecord) -> None:
        """Remove the *record* of a run that this driver began after it had lost the lease."""
        key = record_key(self.incarnation)
        there = self.storage.head(key)
        # By content: the driver that took over may have begun a run of its own under this number.
        if there is not None and self.storage.get(key) == record.to_bytes():
            self.storage.delete_exactly([there])

    def accept_change(self, record: RunRecord) -> None:
        """Store the *record* of a changed spec that a user accepted; it names the user."""
        number = len(list(self.records.list("changes"))) + 1
        create(self.records, f"changes/{number:04d}.json", record.to_bytes())


def create(storage: Storage, key: str, data: bytes) -> None:
    """Store a document that only one driver may write. Atomic and durable.

    Raises:
        LeaseHeldError: Another driver was first.
    """
    if not storage.put_if_absent({key: data}):
        raise LeaseHeldError(
            f"{storage.uri}/{key} was written by another driver just now; run again"
        )
