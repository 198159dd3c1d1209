"""Writes the parts of a worker, and commits finished ones a few at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.commit import Finished, commit, foreign_part
from batchrunner.checkpoint.dead_letters import DeadLetterFile
from batchrunner.errors import RunRefusedError, StorageError, TakenPathError
from batchrunner.formats.columns import bare_table
from batchrunner.formats.format_error import FormatError
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import EarlyEnd, Shard
from batchrunner.worker.capability_runs import record_runs
from batchrunner.worker.part import Part
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.receipt import Cause, DeferredCommit, Failure, Receipt
from batchrunner.worker.resolving import BatchOutput
from batchrunner.worker.schema import SinkSchema
from batchrunner.worker.usage import added, priced
from batchrunner.worker.work import Work

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun

GROUP_PARTS, GROUP_BYTES, GROUP_SECONDS = 32, 8 << 20, 1.0
"""Finished parts are committed together once one limit is reached: their number, their size, or the
time since the last commit. Small parts share the cost of a sync; large or slow ones do not wait."""


class Committer:
    """Writes and commits the parts of one worker. Not safe in several threads at once.

    Attributes:
        pulse: The pulse of the worker, which knows what each attempt has taken so far.
    """

    def __init__(
        self, work: Work, schema: SinkSchema | None = None, pulse: Pulse | None = None
    ) -> None:
        """Prepare to write parts of *work*, with the caller's *schema* and *pulse* or else new ones."""
        self._work, self.pulse = work, pulse or Pulse()
        self._sink, self._checkpoint = work.sink(), work.checkpoint()
        self._schema = schema or work.schema()
        self._open: dict[int, Part] = {}
        self._finished: dict[int, Finished] = {}
        self._runs: dict[int, list[CompletedRun]] = {}
        self._last_commit = time.monotonic()

    def committed(self, shards: Sequence[Shard]) -> dict[int, Sentinel]:
        """Return the sentinels of those *shards* that are committed, by shard id."""
        stems = {self._work.facts.stem(shard.id): shard.id for shard in shards}
        sentinels = self._checkpoint.find(stems, run_uid=self._work.run_uid)
        return {stems[stem]: sentinel for stem, sentinel in sentinels.items()}

    def append(self, shard: Shard, output: BatchOutput, *, rows_in: int) -> None:
        """Add *output*, which comes from *rows_in* rows of *shard*, to the part of the shard."""
        began = time.monotonic()
        part = self._part(shard)
        part.rows_in += rows_in
        for piece in output.pieces:
            part.append(piece.rows, count=piece.count)
            part.runs += piece.runs
        part.usage = added(part.usage, output.lost_usage, *(one.usage for one in output.pieces))
        if output.dead_letters:
            if part.dead_letters is None:
                part.dead_letters = DeadLetterFile(self._checkpoint.records.stage())
            part.dead_letters.append(output.dead_letters)
        self.pulse.attempt(shard.id).writing += time.monotonic() - began

    def finish(
        self, shard: Shard, *, source_hash: str = "", early_end: EarlyEnd | None = None
    ) -> list[Receipt]:
        """Finish the part of *shard*; return the receipts of all shards now committed or deferred.

        The list may be empty: the part is then committed later, together with others. A part
        without columns is deferred to the driver as long as no schema is agreed on.
        """
        part = self._part(shard)
        part.source_hash, part.early_end = source_hash, early_end
        keeps_schema = self._work.facts.part_format.keeps_schema
        if keeps_schema and not part.has_columns and not self._schema.agreed():
            return [Receipt(shard.id, deferred=self._defer(shard, part))]
        self._close(shard, part)
        return self.commit() if self._is_due() else []

    def _defer(self, shard: Shard, part: Part) -> DeferredCommit:
        """Discard a part without columns; return its result, to commit once a schema is fixed."""
        deferred = replace(self._result(shard, part), bare_rows=part.rows_out)
        if part.dead_letters is not None:
            # Before any sentinel names them: the driver, which commits the shard, does not have the
            # rows.
            part.dead_letters.staged.file.close()
            self._checkpoint.publish_dead_letters({deferred.errors: part.dead_letters.staged})
        self.drop(shard)
        return deferred

    def _result(self, shard: Shard, part: Part) -> DeferredCommit:
        if part.dead_letters is None:
            return DeferredCommit(
                part.rows_in,
                source_hash=part.source_hash,
                early_end=part.early_end,
                usage=part.usage,
            )
        name = f"{self._work.facts.stem(shard.id)}.{part.write_id}.jsonl"
        dead_letters = part.dead_letters
        return DeferredCommit(
            part.rows_in,
            dead_letters.count,
            name,
            dead_letters.sha256(),
            part.source_hash,
            early_end=part.early_end,
            usage=part.usage,
        )

    def commit_deferred(self, shard: Shard, deferred: DeferredCommit) -> list[Receipt]:
        """Commit a shard whose output has no column, with the schema of the other parts."""
        part = self._part(shard)
        part.rows_in = deferred.rows_in
        try:
            if deferred.bare_rows:
                part.append(bare_table(deferred.bare_rows), count=deferred.bare_rows)
            self._close(shard, part, result=deferred)
        except (SchemaError, FormatError) as error:
            self.drop(shard)
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}")
            return [Receipt(shard.id, failure=failure)]
        return self.commit()

    def commit(self) -> list[Receipt]:
        """Commit all finished parts; return a receipt for each, even if storage fails.

        Atomic for each shard, and a shard is committed only once.
        """
        finished, self._finished = self._finished, {}
        runs, self._runs = self._runs, {}
        began = self._last_commit = time.monotonic()
        if not finished:
            return []
        try:
            # Runs before parts: a driver or a worker that adopts a part later does not have its
            # runs.
            refused = record_runs(self._work, runs)
            accepted = [f for shard, f in finished.items() if shard not in refused]
            why: dict[str, RunRefusedError] = {}
            stems = commit(accepted, sink=self._sink, checkpoint=self._checkpoint, refused=why)
        except StorageError as error:
            failure = Failure(Cause.STORAGE, str(error))
            return [Receipt(shard, failure=failure) for shard in finished]
        self.pulse.commit_share = (time.monotonic() - began) / len(finished)
        for shard in refused:
            finished.pop(shard).discard()
        return [
            *(
                Receipt(shard, failure=Failure(Cause.CAPABILITY, f"shard {shard}: {why}"))
                for shard, why in refused.items()
            ),
            *self._receipts(finished, stems, why),
        ]

    def _receipts(
        self,
        finished: Mapping[int, Finished],
        stems: Mapping[str, Sentinel],
        why: Mapping[str, RunRefusedError],
    ) -> list[Receipt]:
        return [
            Receipt(shard, sentinel=stems[f.stem])
            if f.stem in stems
            else Receipt(shard, failure=self._refusal(f, why.get(f.stem)))
            for shard, f in finished.items()
        ]

    def _refusal(self, finished: Finished, why: RunRefusedError | None) -> Failure:
        """Return why a part is not committed although nothing failed."""
        if isinstance(why, TakenPathError):
            return Failure(Cause.TAKEN, str(why))
        part = f"{self._sink.uri}/{finished.sentinel.part}"
        return Failure(Cause.FOREIGN, foreign_part(part) if why is None else str(why))

    def drop(self, shard: Shard) -> None:
        """Discard the part of *shard*, if one is being written."""
        if part := self._open.pop(shard.id, None):
            part.discard()

    def close(self) -> None:
        """Discard all parts that are not committed."""
        for part in self._open.values():
            part.discard()
        for finished in self._finished.values():
            finished.discard()

    def _part(self, shard: Shard) -> Part:
        if shard.id not in self._open:
            self._open[shard.id] = Part(
                self._sink.stage,
                self._work.facts,
                settle=self._schema.settle,
                stage_bundle=self._checkpoint.records.stage,
            )
        return self._open[shard.id]

    def _close(self, shard: Shard, part: Part, *, result: DeferredCommit | None = None) -> None:
        began = time.monotonic()
        facts = part.finish()
        del self._open[shard.id]
        result = result or self._result(shard, part)
        now, attempt = time.monotonic(), self.pulse.attempt(shard.id)
        end = result.early_end or EarlyEnd(0)
        sentinel = Sentinel(
            run_uid=self._work.run_uid,
            shard=shard.id,
            part=self._work.facts.part(shard.id),
            rows_in=part.rows_in,
            rows_out=part.rows_out,
            rows_failed=result.rows_failed,
            bytes=facts.bytes,
            sha256=facts.sha256,
            write_id=facts.write_id,
            session=self._work.session,
            seconds=round(now - attempt.since, 3),
            errors=result.errors,
            errors_sha256=result.errors_sha256,
            source_hash=result.source_hash,
            worker=self.pulse.worker,
            began=round(attempt.began, 3),
            reading=round(attempt.reading, 3),
            calling=round(attempt.calling, 3),
            writing=round(attempt.writing + now - began + self.pulse.commit_share, 3),
            slices=end.slices,
            slice_rows=end.rows,
            slice_total=end.total,
            files=f"{self._work.facts.stem(shard.id)}.{part.write_id}" if part.bundle else "",
            usage=dict(priced(result.usage, self._work.spec.execution.prices)),
        )
        self._runs[shard.id] = part.runs
        self._finished[shard.id] = Finished(
            stem=self._work.facts.stem(shard.id),
            staged=part.staged,
            sentinel=sentinel,
            dead_letters=part.dead_letters.staged if part.dead_letters else None,
            bundle=part.bundle,
        )

    def _is_due(self) -> bool:
        waiting = sum(f.nbytes for f in self._finished.values())
        return (
            len(self._finished) >= GROUP_PARTS
            or waiting >= GROUP_BYTES
            or time.monotonic() - self._last_commit >= GROUP_SECONDS
        )
