"""The records that `run` writes of a batch: one of the batch, one of each shard."""

from __future__ import annotations

from datetime import datetime

from batchrunner.analytics.record import Record


class BatchRunRecord(Record, table_name="batch_runs"):
    """A completed batch.

    Attributes:
        name: Of the spec.
        fingerprint: Hash of everything that decides the output.
        source_uri, sink_uri: Where its rows came from and went; several sources by commas.
        shards: Committed, all of them.
        sessions: Drivers that worked on it.
        rows_in, rows_out, rows_failed: Of all shards.
        bytes_out: Of all parts.
        seconds: Of work, over all shards.
        started_at: When its first session began.
        capability: What it mapped over its rows; None for an object of the program that ran it.
        batch_uid: The batch, over all the states in which it was complete.
        checkpoint_uri: Of its checkpoint.
        tags: Of the spec, as JSON.
    """

    name: str
    fingerprint: str
    source_uri: str
    sink_uri: str
    shards: int
    sessions: int
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    seconds: float | None = None
    started_at: datetime | None = None
    capability: str | None = None
    batch_uid: str | None = None
    checkpoint_uri: str | None = None
    tags: str | None = None


class BatchShardRecord(Record, table_name="batch_shards"):
    """A committed shard of a batch.

    Attributes:
        shard: Its id.
        part: Its output file.
        source_uri: Its source file.
        slicing, start, stop: Its slice of that file: the unit, and the bounds in it.
        rows_in, rows_out, rows_failed: Its rows.
        bytes_out, sha256: Of its part.
        seconds: How long it took.
        session: The driver session that committed it.
    """

    shard: int
    part: str
    source_uri: str
    slicing: str
    start: int | None = None
    stop: int | None = None
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    sha256: str
    seconds: float | None = None
    session: str | None = None
