"""The parts that a worker is making: opened, filled, finished, and committed a few at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.commit import Finished, commit
from batchrunner.checkpoint.dead_letters import DeadLetterFile
from batchrunner.errors import StorageError
from batchrunner.formats.columns import bare_table
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import Shard
from batchrunner.worker.capability_runs import record_runs
from batchrunner.worker.part import Part
from batchrunner.worker.receipt import Cause, Failure, PutOff, Receipt
from batchrunner.worker.resolving import Made
from batchrunner.worker.schema import SinkSchema
from batchrunner.worker.work import Work

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun

GROUP_PARTS, GROUP_BYTES, GROUP_SECONDS = 32, 8 << 20, 1.0
"""Parts are committed together up to so many, so large, or so long after the last commit: small
ones share the cost of becoming durable, and large or slow ones do not wait."""


class Committer:
    """Makes the parts of one worker. One thread at a time."""

    def __init__(self, work: Work, schema: SinkSchema | None = None) -> None:
        """Commit parts of *work*, in *schema* if that is a worker's own already."""
        self._work = work
        self._sink, self._checkpoint = work.sink(), work.checkpoint()
        self._schema = schema or work.schema()
        self._open: dict[int, Part] = {}
        self._finished: dict[int, Finished] = {}
        self._runs: dict[int, list[CompletedRun]] = {}
        self._last_commit = time.monotonic()

    def committed(self, shards: Sequence[Shard]) -> dict[int, Sentinel]:
        """Return the sentinels of those *shards* that are committed already.

        A group that died half-way is handed out again as a whole.
        """
        stems = {self._work.facts.stem(shard.id): shard.id for shard in shards}
        found = self._checkpoint.find(stems, run_uid=self._work.run_uid)
        return {stems[stem]: sentinel for stem, sentinel in found.items()}

    def append(self, shard: Shard, made: Made, *, rows_in: int) -> None:
        """Add to the part of *shard* what the capability made of *rows_in* of its rows."""
        part = self._part(shard)
        part.rows_in += rows_in
        for piece in made.pieces:
            part.append(piece.rows, count=piece.count)
            part.runs += piece.runs
        if made.dead_letters:
            if part.dead_letters is None:
                part.dead_letters = DeadLetterFile(self._checkpoint.records.stage())
            part.dead_letters.append(made.dead_letters)

    def finish(self, shard: Shard, *, source_hash: str = "") -> list[Receipt]:
        """Close the part of *shard*; it is committed now, or soon, together with others."""
        part = self._part(shard)
        part.source_hash = source_hash
        keeps_schema = self._work.facts.part_format.keeps_schema
        if keeps_schema and not part.has_columns and not self._schema.known():
            return [Receipt(shard.id, put_off=self._put_off(shard, part))]
        self._close(shard, part)
        return self.commit() if self._is_due() else []

    def _put_off(self, shard: Shard, part: Part) -> PutOff:
        """Keep what is known of a shard without columns, until somebody knows the schema."""
        known = replace(self._set_aside(shard, part), bare_rows=part.rows_out)
        if part.dead_letters is not None:
            part.dead_letters.staged.file.close()
            self._checkpoint.publish_dead_letters({known.errors: part.dead_letters.staged})
        self.drop(shard)
        return known

    def _set_aside(self, shard: Shard, part: Part) -> PutOff:
        if part.dead_letters is None:
            return PutOff(part.rows_in, source_hash=part.source_hash)
        name = f"{self._work.facts.stem(shard.id)}.{part.write_id}.jsonl"
        dead_letters = part.dead_letters
        return PutOff(
            part.rows_in, dead_letters.count, name, dead_letters.sha256(), part.source_hash
        )

    def commit_empty(self, shard: Shard, known: PutOff) -> list[Receipt]:
        """Commit a shard whose rows name no column, in the schema of the others, if it is known."""
        part = self._part(shard)
        part.rows_in = known.rows_in
        try:
            if known.bare_rows:
                part.append(bare_table(known.bare_rows), count=known.bare_rows)
            self._close(shard, part, dead_letters=known)
        except SchemaError as error:
            self.drop(shard)
            failure = Failure(Cause.CAPABILITY, f"{shard}: {error}")
            return [Receipt(shard.id, failure=failure)]
        return self.commit()

    def commit(self) -> list[Receipt]:
        """Commit the parts that are finished."""
        finished, self._finished = self._finished, {}
        runs, self._runs = self._runs, {}
        self._last_commit = time.monotonic()
        if not finished:
            return []
        try:
            # Before the part: whoever adopts that cannot make its runs again.
            unfit = record_runs(self._work, runs)
            fit = [f for shard, f in finished.items() if shard not in unfit]
            stems = commit(fit, sink=self._sink, checkpoint=self._checkpoint)
        except StorageError as error:
            lost = Failure(Cause.STORAGE, str(error))
            return [Receipt(shard, failure=lost) for shard in finished]
        for shard in unfit:
            finished.pop(shard).discard()
        return [
            *(
                Receipt(shard, failure=Failure(Cause.CAPABILITY, f"shard {shard}: {why}"))
                for shard, why in unfit.items()
            ),
            *self._receipts(finished, stems),
        ]

    def _receipts(
        self, finished: Mapping[int, Finished], stems: Mapping[str, Sentinel]
    ) -> list[Receipt]:
        return [
            Receipt(shard, sentinel=stems[f.stem])
            if f.stem in stems
            else Receipt(shard, failure=Failure(Cause.FOREIGN, self._foreign(f)))
            for shard, f in finished.items()
        ]

    def drop(self, shard: Shard) -> None:
        """Give up the part of *shard*, if it has one."""
        if part := self._open.pop(shard.id, None):
            part.discard()

    def close(self) -> None:
        """Give up everything that is not committed."""
        for part in self._open.values():
            part.discard()
        for finished in self._finished.values():
            finished.discard()

    def _part(self, shard: Shard) -> Part:
        if shard.id not in self._open:
            self._open[shard.id] = Part(
                self._sink.stage, self._work.facts, settle=self._schema.settle
            )
        return self._open[shard.id]

    def _close(self, shard: Shard, part: Part, *, dead_letters: PutOff | None = None) -> None:
        facts = part.finish()
        del self._open[shard.id]
        dead_letters = dead_letters or self._set_aside(shard, part)
        sentinel = Sentinel(
            run_uid=self._work.run_uid,
            shard=shard.id,
            part=self._work.facts.part(shard.id),
            rows_in=part.rows_in,
            rows_out=part.rows_out,
            rows_failed=dead_letters.rows_failed,
            bytes=facts.bytes,
            sha256=facts.sha256,
            write_id=facts.write_id,
            session=self._work.session,
            seconds=facts.seconds,
            errors=dead_letters.errors,
            errors_sha256=dead_letters.errors_sha256,
            source_hash=dead_letters.source_hash,
        )
        self._runs[shard.id] = part.runs
        self._finished[shard.id] = Finished(
            stem=self._work.facts.stem(shard.id),
            staged=part.staged,
            sentinel=sentinel,
            dead_letters=part.dead_letters.staged if part.dead_letters else None,
        )

    def _is_due(self) -> bool:
        waiting = sum(f.sentinel.bytes for f in self._finished.values())
        return (
            len(self._finished) >= GROUP_PARTS
            or waiting >= GROUP_BYTES
            or time.monotonic() - self._last_commit >= GROUP_SECONDS
        )

    def _foreign(self, finished: Finished) -> str:
        return (
            f"{self._sink.uri}/{finished.sentinel.part} was not written by this run; "
            "move it away, then run again"
        )
