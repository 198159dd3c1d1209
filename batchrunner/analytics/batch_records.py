"""The records that `run` writes about a batch: one for the batch, one for each shard and each stage."""

from __future__ import annotations

from datetime import datetime

from batchrunner.analytics.record import Record


class BatchRunRecord(Record, table_name="batch_runs"):
    """A completed batch.

    Attributes:
        name: Name of the batch, from the spec.
        fingerprint: Hash of everything that decides the output.
        source_uri, sink_uri: Where its rows came from and went; several sources joined by commas.
        shards: Number of shards, all of them committed.
        sessions: Number of driver sessions that worked on it.
        rows_in, rows_out, rows_failed: Number of rows, over all shards.
        bytes_out: Size of all parts.
        seconds: Time that workers spent, over all shards.
        started_at: When its first session began.
        capability: The capability of the spec; None for an object of the program that ran it.
        batch_uid: Identifies the batch in each of the states in which it was complete.
        checkpoint_uri: URI of its checkpoint.
        tags: Tags of the spec, as JSON.
        cost: What the calls have cost that its rows came of, if they said so.
        usage: What else they have used, such as tokens, as JSON.
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
    cost: float | None = None
    usage: str | None = None


class BatchShardRecord(Record, table_name="batch_shards"):
    """A committed shard of a batch.

    Attributes:
        shard: Id of the shard.
        part: Its output file.
        source_uri: Its source file.
        slicing, start, stop: Its slice of the source file: the unit, and the bounds in that unit; of
            several files, `files`, 0 and their number, and `source_uri` is the first.
        rows_in, rows_out, rows_failed: Number of its rows.
        bytes_out, sha256: Size and hash of its part.
        seconds: How long a worker took for it.
        session: The driver session that committed it.
        cost, usage: As of a batch.
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
    cost: float | None = None
    usage: str | None = None


class BatchStageRecord(Record, table_name="batch_stages"):
    """What the workers of one stage of a batch spent their time on, in seconds over all of them.

    Summed over the sessions of which parts are in the output; what died with a worker is missing.

    Attributes:
        stage, kind: Its name, and whether it is a `stage` of the capability, the `read`ing of the
            source or the `write`ing of the parts.
        loading, waiting_input, calling, waiting_output: What they did: load the capability, wait for
            rows, be in the capability, wait for room for its output.
        limited: How much of `calling` went by at the rate limit.
        cpu: CPU time in `calling`; None where it is not known.
        cpu_wait: For how long their threads were ready to compute meanwhile, and had no CPU.
        rows, calls: Rows that went in, and the batches that they were.
        peak_memory: The most bytes that the process of any one worker had.
    """

    stage: str
    kind: str
    loading: float
    waiting_input: float
    calling: float
    waiting_output: float
    limited: float
    cpu: float | None = None
    cpu_wait: float = 0.0
    rows: int
    calls: int
    peak_memory: int
