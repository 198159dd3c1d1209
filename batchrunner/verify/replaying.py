"""Replay: computes shards again from the second readers' rows, and compares with the parts."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.driver.definition import RunDefinition
from batchrunner.errors import CapabilityImportError, SpecChangedError, StorageError, describe
from batchrunner.formats.contract import RecordReader, RowFormat, TableReader
from batchrunner.shard import Shard
from batchrunner.spec.fingerprint import differences
from batchrunner.verify.comparing import record_difference, table_difference
from batchrunner.verify.evidence import DeadLetterPositions, Evidence, SliceRead
from batchrunner.verify.findings import Finding, FindingKind
from batchrunner.verify.reading import GONE, SourceReader, part_reader, unreadable
from batchrunner.verify.replay_batch import (
    RecordBatch,
    ReplayBatch,
    TableBatch,
    record_batches,
    selected_rows,
    table_batches,
    tables_of_records,
)
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.calling import Piece
from batchrunner.worker.capability_loading import DirectCaller, direct_caller
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.rate_gate import own_gate
from batchrunner.worker.schema import RowTypes
from batchrunner.worker.work import Work

_NAMED = 20


class _ReplayFailedError(Exception):
    """The capability raised for a row for which it succeeded in the run."""


def chosen(shards: Sequence[Shard], share: float, *, run_uid: str) -> list[Shard]:
    """Return a *share* of *shards*, rounded up, drawn at random; the same for the same run."""

    def draw(shard: Shard) -> bytes:
        return hashlib.sha256(f"{run_uid}/{shard.id}".encode()).digest()

    some = sorted(shards, key=draw)[: math.ceil(share * len(shards))]
    return sorted(some, key=lambda shard: shard.id)


def refuse_other_code(definition: RunDefinition, run: RunLocation, evidence: Evidence) -> None:
    """Check that the capability is that of the run.

    Rows of another one would be reported as defects, and a repair would move sound parts away.

    Raises:
        CapabilityImportError: The code of the capability cannot be found or parsed.
        SpecChangedError: Its code, its arguments or its settings differ from those that the run recorded.
    """
    now = definition.compared_with(evidence.decisive)
    lines = [x for x in differences(evidence.decisive, now) if x.startswith("capability.")]
    if lines:
        more = f"\n  and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        named = "".join(f"\n  {line}" for line in lines[:_NAMED])
        raise SpecChangedError(
            f"the capability is not that of the run in {run.checkpoint.storage.uri}:{named}{more}\n"
            "Nothing was compared. Replay with the code that made the output; without --replay, "
            "verify needs no code."
        )


class Replay:
    """Replays shards in this process. Writes no output and records no runs.

    Attributes:
        notes: Which shards were replayed, and which could not be replayed; a line each.
        left_out: Ids of shards that could not be replayed.
    """

    def __init__(self, run: RunLocation, evidence: Evidence, *, capability: Any) -> None:
        self.notes: list[str] = []
        self.left_out: set[int] = set()
        self._run, self._evidence = run, evidence
        self._source, self._dead_letters = (
            SourceReader(run.spec.source),
            DeadLetterPositions(run, evidence),
        )
        self._work = _work(run, evidence, capability)
        self._part_reader = part_reader(run, evidence.plan.facts)

    def faults(
        self, shards: Sequence[Shard], *, watch: Callable[[int, int], None]
    ) -> Iterator[Finding]:
        """Yield the first difference of each shard between the capability's rows and its part.

        Raises:
            CapabilityImportError: The capability cannot be imported or built.
            StorageError: Source or part cannot be read.
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
        self.notes.insert(0, _summary(replayed, shards=len(self._evidence.plan.active)))

    def _caller(self) -> DirectCaller:
        schema = self._work.schema()
        types = RowTypes(schema if self._evidence.plan.facts.part_format.keeps_schema else None)

        # The same hints as in a worker: a declared schema comes before the types of the source.
        def input_types(batch: Batch) -> InputTypes:
            return types.expected(batch.input_types)

        spec = self._work.spec
        meter = MeteredGate.of(spec, own_gate(spec.execution.rate_limit))
        return direct_caller(self._work, schema, input_types=input_types, meter=meter)

    def _difference(self, caller: DirectCaller, shard: Shard) -> str:
        again = self._made(caller, shard)
        try:
            with self._run.sink.open(self._evidence.data[self._part(shard)]) as file:
                reader = self._part_reader
                if isinstance(reader, TableReader):
                    made = reader.tables(file, None, wanted=None, columns=None)
                    return table_difference(
                        (table for _, table in made), (piece.rows for piece in again)
                    )
                compression = self._evidence.plan.facts.compression
                part = _records(reader, file, compression)
                again_records = (
                    record
                    for piece in again
                    for record in _records(reader, io.BytesIO(self._in_part(piece.rows)), "none")
                )
                return record_difference(part, again_records, row_of=reader.row_of)
        except _ReplayFailedError as error:
            return str(error)
        except StorageError:
            raise
        except unreadable() as error:
            return f"source or part cannot be read: {describe(error)}"

    def _made(self, caller: DirectCaller, shard: Shard) -> Iterator[Piece]:
        for batch in self._batches(shard):
            yield from self._call(caller, batch)

    def _batches(self, shard: Shard) -> Iterator[ReplayBatch]:
        # Over the slices, as in the run: the capability was called with rows of several files.
        reads = self._dead_letters.read_by(shard)
        for of_tables, some in groupby(reads, key=self._is_of_tables):
            yield from (self._of_tables if of_tables else self._of_records)(some)

    def _is_of_tables(self, read: SliceRead) -> bool:
        return isinstance(self._source.of(read.piece), TableReader)

    def _of_tables(self, reads: Iterable[SliceRead]) -> Iterator[ReplayBatch]:
        rows = (batch for read in reads for batch in self._tables_of(read))
        return table_batches(rows, size=self._work.spec.batch_size)

    def _tables_of(self, read: SliceRead) -> Iterator[TableBatch]:
        columns, reader = self._run.spec.source.columns, self._source.of(read.piece)
        assert isinstance(reader, TableReader)  # noqa: S101 - see `_is_of_tables`
        tables = self._source.tables(reader, read.piece, wanted=read.wanted, columns=columns)
        return selected_rows(tables, wanted=read.wanted, failed=read.failed)

    def _of_records(self, reads: Iterable[SliceRead]) -> Iterator[ReplayBatch]:
        size = self._work.spec.batch_size
        records = (batch for read in reads for batch in self._records_of(read))
        if self._work.takes_tables:
            return table_batches(tables_of_records(records), size=size)
        return record_batches(records, size=size)

    def _records_of(self, read: SliceRead) -> Iterator[RecordBatch]:
        columns, reader = self._run.spec.source.columns, self._source.of(read.piece)
        assert isinstance(reader, RecordReader)  # noqa: S101 - see `_is_of_tables`
        folders = self._source.folders(read.piece, columns=columns)
        like = RecordBatch([], columns, folders, reader.row_of, reader.types_of)
        for some in self._source.records(reader, read.piece, wanted=read.wanted):
            yield replace(like, records=[one for one in some if one[0] not in read.failed])

    def _call(self, caller: DirectCaller, batch: ReplayBatch) -> list[Piece]:
        """Return the capability's rows for *batch*, or for its halves if it fails for the whole.

        The run halved batches in the same way: it fails again for these, and some calls fail by chance.
        """
        try:
            return _answer(caller, batch)
        except CapabilityImportError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            if len(batch) == 1:
                return self._retry(caller, batch, error)
            return [piece for half in batch.halves() for piece in self._call(caller, half)]

    def _retry(self, caller: DirectCaller, batch: ReplayBatch, error: Exception) -> list[Piece]:
        """Retry a *batch* of one row that failed with *error*; return the capability's rows."""
        for _ in range(self._run.spec.errors.retry.max_attempts - 1):
            try:
                return _answer(caller, batch)
            except Exception as latest:  # noqa: BLE001 - the user's code may raise anything
                error = latest
        what = f"the capability fails for the row at {batch.first:,}, for which it succeeded in the run"
        raise _ReplayFailedError(f"{what}: {describe(error)}") from error

    def _in_part(self, rows: bytes | None) -> bytes:
        made = self._evidence.plan.facts.part_format
        return made.in_part(rows or b"") if isinstance(made, RowFormat) else b""

    def _part(self, shard: Shard) -> str:
        return self._evidence.plan.facts.part(shard.id)


def _answer(caller: DirectCaller, batch: ReplayBatch) -> list[Piece]:
    [pieces] = caller.submit(batch)()  # type: ignore[arg-type]  # it has all that is called of a batch
    return pieces


def _work(run: RunLocation, evidence: Evidence, capability: Any) -> Work:
    return Work(
        spec=run.spec,
        run_uid=evidence.run_uid,
        session="verify",
        facts=evidence.plan.facts,
        weight=sum(shard.weight for shard in evidence.plan.active),
        capability=capability,
        incarnation=run.checkpoint.incarnation,
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
