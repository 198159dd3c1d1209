"""Shards made once more, by the capability and by readers of our own, and held against their parts."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.driver.definition import RunDefinition
from batchrunner.errors import CapabilityImportError, SpecChangedError, StorageError, describe
from batchrunner.formats.contract import RecordReader, TableReader
from batchrunner.shard import Shard
from batchrunner.spec.fingerprint import differences
from batchrunner.verify.comparing import record_difference, table_difference
from batchrunner.verify.counting import GONE, unreadable
from batchrunner.verify.dead_letters import DeadLetters
from batchrunner.verify.evidence import Evidence
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.reading import SourceReader
from batchrunner.verify.replay_batch import (
    RecordBatch,
    ReplayBatch,
    picked,
    record_batches,
    table_batches,
    tables_of_records,
)
from batchrunner.worker.batch import Batch, Given
from batchrunner.worker.calling import Caller, Piece
from batchrunner.worker.process import direct_caller
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.work import Work

_NAMED = 20


class _RaisedError(Exception):
    """The capability raised for one row; says what."""


def chosen(shards: Sequence[Shard], share: float, *, run_uid: str) -> list[Shard]:
    """Return that *share* of *shards*, at least one: the same ones each time for the same run."""

    def draw(shard: Shard) -> bytes:
        return hashlib.sha256(f"{run_uid}/{shard.id}".encode()).digest()

    some = sorted(shards, key=draw)[: math.ceil(share * len(shards))]
    return sorted(some, key=lambda shard: shard.id)


def refuse_other_code(asked_for: RunDefinition, place: RunLocation, seen: Evidence) -> None:
    """Refuse to replay with a capability that is not that of the run.

    Its rows would be called defects, and a repair would take sound parts away.

    Raises:
        CapabilityImportError: Its code cannot be found or parsed.
        SpecChangedError: Its code, or what it is given, is not what the run recorded.
    """
    now = asked_for.compared_with(seen.decisive)
    lines = [x for x in differences(seen.decisive, now) if x.startswith("capability.")]
    if lines:
        more = f"\n  and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        told = "".join(f"\n  {line}" for line in lines[:_NAMED])
        raise SpecChangedError(
            f"the capability is not that of the run in {place.checkpoint.storage.uri}:{told}{more}\n"
            "Nothing was compared. Replay with the code that made the output; without --replay, "
            "verify needs no code."
        )


class Replay:
    """Runs the capability in this process, which records and writes nothing.

    Attributes:
        notes: Which shards were replayed, and which could not be; a line each.
        left_out: Ids of shards that could not be replayed.
    """

    def __init__(self, place: RunLocation, seen: Evidence, *, capability: Any) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._place, self._seen = place, seen
        self._source, self._dead_letters = SourceReader(place.spec.source), DeadLetters(place, seen)
        self._work = _work(place, seen, capability)
        self._part_reader = seen.plan.facts.part_format.second_reader()

    def faults(
        self, shards: Sequence[Shard], *, watch: Callable[[int, int], None]
    ) -> Iterator[Finding]:
        """Yield where the capability gives something else than what the part of a shard holds.

        Raises:
            CapabilityImportError: It cannot be imported or built.
            StorageError: Something cannot be read.
        """
        replayed: list[Shard] = []
        with closing(self._caller()) as caller:
            for done, shard in enumerate(shards, start=1):
                try:
                    why = self._difference(caller, shard)
                except GONE as error:
                    self.notes.append(f"{shard}: it was not replayed: {error}")
                    self.left_out.add(shard.id)
                    continue
                if why:
                    yield Finding(FindingKind.REPLAY, self._part(shard), why, shard.id)
                replayed.append(shard)
                watch(done, len(shards))
        self.notes.insert(0, _summary(replayed, shards=len(self._seen.plan.active)))

    def _caller(self) -> Caller:
        schema = self._work.schema()
        types = RowTypes(schema if self._seen.plan.facts.part_format.keeps_schema else None)

        def given(batch: Batch) -> Given:
            return replace(batch.given, types=types.hints(batch.given.types))

        return direct_caller(self._work, schema, given=given)

    def _difference(self, caller: Caller, shard: Shard) -> str:
        again = self._made(caller, shard)
        try:
            with self._place.sink.open(self._seen.data[self._part(shard)]) as file:
                reader = self._part_reader
                if isinstance(reader, TableReader):
                    made = reader.tables(file, None, wanted=None, columns=None)
                    return table_difference(
                        (table for _, table in made), (piece.rows for piece in again)
                    )
                compression = self._seen.plan.facts.compression
                part = _records(reader, file, compression)
                again_records = (
                    record
                    for piece in again
                    for record in _records(reader, io.BytesIO(piece.rows or b""), "none")
                )
                return record_difference(part, again_records, row_of=reader.row_of)
        except _RaisedError as error:
            return str(error)
        except StorageError:
            raise
        except unreadable() as error:
            return f"source or part cannot be read: {describe(error)}"

    def _made(self, caller: Caller, shard: Shard) -> Iterator[Piece]:
        for batch in self._batches(shard):
            yield from self._call(caller, batch)

    def _batches(self, shard: Shard) -> Iterator[ReplayBatch]:
        wanted, aside = self._dead_letters.wanted(shard), self._dead_letters.of(shard)
        columns, size = self._place.spec.source.columns, self._place.spec.execution.batch_size
        reader = self._source.of(shard)
        if isinstance(reader, TableReader):
            tables = self._source.tables(reader, shard, wanted=wanted, columns=columns)
            return table_batches(picked(tables, wanted=wanted, aside=aside), size=size)
        records = (
            [record for record in some if record[0] not in aside]
            for some in self._source.records(reader, shard, wanted=wanted)
        )
        folders = self._source.folders(shard, columns=columns)
        like = RecordBatch([], columns, folders, reader.row_of)
        if self._work.takes_tables:
            return table_batches(tables_of_records(records, like=like), size=size)
        return record_batches(records, size=size, like=like)

    def _call(self, caller: Caller, batch: ReplayBatch) -> list[Piece]:
        """Return what the capability makes of *batch*; in halves if it fails for the whole.

        So did the run, and some calls only fail now and then.
        """
        try:
            return caller.submit(batch)()  # type: ignore[arg-type]  # it has what is asked of a batch
        except CapabilityImportError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            if len(batch) == 1:
                return self._once_more(caller, batch, error)
            return [piece for half in batch.halves() for piece in self._call(caller, half)]

    def _once_more(self, caller: Caller, batch: ReplayBatch, error: Exception) -> list[Piece]:
        for _ in range(self._place.spec.errors.retry.max_attempts - 1):
            try:
                return caller.submit(batch)()  # type: ignore[arg-type]  # as above
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        what = (
            f"the capability fails for the row at {batch.first:,}, which it had made something of"
        )
        raise _RaisedError(f"{what}: {describe(error)}") from error

    def _part(self, shard: Shard) -> str:
        return self._seen.plan.facts.part(shard.id)


def _work(place: RunLocation, seen: Evidence, capability: Any) -> Work:
    return Work(
        spec=place.spec,
        run_uid=seen.run_uid,
        session="verify",
        facts=seen.plan.facts,
        weight=sum(shard.weight for shard in seen.plan.active),
        capability=capability,
        incarnation=place.checkpoint.incarnation,
    )


def _records(reader: RecordReader, file: Any, compression: str) -> Iterator[bytes]:
    for some in reader.part_records(file, compression=compression):
        for _, record in some:
            yield record


def _summary(replayed: Sequence[Shard], *, shards: int) -> str:
    if not replayed:
        return "no shard was replayed"
    some = ", ".join(str(shard.id) for shard in replayed[:_NAMED])
    more = f" and {len(replayed) - _NAMED:,} more" if len(replayed) > _NAMED else ""
    return f"replayed {len(replayed):,} of {shards:,} shards: {some}{more}"
