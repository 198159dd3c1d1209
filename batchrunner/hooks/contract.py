"""The contract of a hook, and the values that it is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn, Protocol


class EndState(StrEnum):
    """How a session left its run."""

    COMPLETE = "complete"
    """Every shard is committed, and no more rows failed than may."""
    STOPPED = "stopped"
    """A signal, `execution.max_runtime` or another driver ended the session: the run can go on."""
    FAILED = "failed"
    """A person has to act."""


class FrozenDict(dict[str, str]):
    """A dict that refuses changes: all hooks get the same events. `dict(it)` is a copy to change.

    Not a `MappingProxyType`, which neither pickle nor `dataclasses.asdict` nor JSON takes.
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("an event cannot be changed: all hooks get it. Change a copy: dict(…)")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that an event is about, and the session that it happened in.

    Attributes:
        run_uid: Identifies the run over all its sessions; 32 hex digits.
        session: Identifies the session.
        name: The name in the spec.
        sources: URIs of the source.
        sink: URI of the folder of the parts.
        checkpoint: URI of the folder of the run's records.
        tags: The tags in the spec.
    """

    run_uid: str
    session: str
    name: str
    sources: tuple[str, ...]
    sink: str
    checkpoint: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", FrozenDict(self.tags))


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A session has made its plan durable, and is about to hand out shards.

    Attributes:
        run: The run.
        at: When, in ISO 8601, UTC. For people, never to compare.
        shards: Number of shards of the run.
        shards_committed: Number of shards that are committed already.
    """

    run: RunInfo
    at: str
    shards: int
    shards_committed: int


@dataclass(frozen=True, slots=True)
class ShardCommitted:
    """A shard is complete: its part and its sentinel are durable.

    Attributes:
        run: The run.
        at: When the driver heard of it, in ISO 8601, UTC.
        shard: Id of the shard.
        source: URI of the file that it is a slice of; of several files, of the first one.
        part: Name of the part in the sink.
        rows_in: Rows read.
        rows_out: Rows in the part.
        rows_failed: Rows that failed.
        bytes_out: Size of the part.
        seconds: How long the attempt took.
        files: How many files it reads.
    """

    run: RunInfo
    at: str
    shard: int
    source: str
    part: str
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    seconds: float
    files: int = 1


@dataclass(frozen=True, slots=True)
class DeadLetterKept:
    """A row of a committed shard failed; the checkpoint keeps it with its error.

    Attributes:
        run: The run.
        at: When the driver heard of it, in ISO 8601, UTC.
        shard: Id of the row's shard.
        source: URI of the row's file.
        position: Where the row is in that file, such as `line 7`.
        stage: Where the row failed: `read`, or the name of the stage; without stages, of the class or function.
        error: Name of the error's type.
        message: Message of the error.
        row: The row's content in one line, shortened if it is long.
    """

    run: RunInfo
    at: str
    shard: int
    source: str
    position: str
    stage: str
    error: str
    message: str
    row: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A session is over. The totals are those of its report: sums over all sessions of the run.

    Attributes:
        run: The run.
        at: When, in ISO 8601, UTC.
        state: How the session left the run.
        error: Why the run is not complete, for a person; empty if it is.
        shards: Number of shards of the run.
        shards_committed: Number of shards that are committed.
        shards_new: Number of shards that this session committed.
        rows_in: Rows read.
        rows_out: Rows written.
        rows_failed: Rows that failed.
        bytes_out: Size of all parts.
        seconds: How long this session took.
        columns: The columns of the parts and their Arrow types; empty if the parts have no types.
        shards_adopted: Number of shards that this session found written and took over: an earlier
            one died before it had recorded them.
    """

    run: RunInfo
    at: str
    state: EndState
    error: str
    shards: int
    shards_committed: int
    shards_new: int
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    seconds: float
    columns: Mapping[str, str] = field(default_factory=dict)
    shards_adopted: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", FrozenDict(self.columns))


Event = RunStarted | ShardCommitted | DeadLetterKept | RunEnded


class Hook(Protocol):
    """Called about what happens to a run. An object with any of these methods is a hook.

    **Where.** In the process that drives the run, never in a worker, and in a thread of the hook's own:
    one call at a time, in the order in which things happened. `on_run_start` comes first, a dead letter
    after its shard, `on_run_end` last.

    **How often.** Each call is made at most once for what happened, and not at all if the driver dies
    first, if more than 10,000 events wait for this hook, or if time is up. So a shard that is committed
    just before a `kill -9` is not reported by the next session; the totals of `RunEnded` count it. A run
    that is complete already opens no session and calls no hook, and neither does one that is refused.

    **Harmless.** What a hook raises, prints or waits for does not change the run: it goes on, the exit
    code stays, and an error is logged as a warning with the hook's name. When the session is over, its
    lease is released, and its hooks have until the end of `execution.grace_period` to return; then they
    are left behind. A fork that a hook makes ends when it returns from the call. A hook is code in the
    driver's process all the same: `os._exit` ends both.

    **In time.** A hook that a spec names is made before the lease is taken. If that takes longer than
    `execution.grace_period`, the run does not start, and the message has the hook's name.

    **What it sees.** Frozen values, with the secrets of the spec as `***`.
    """

    def on_run_start(self, event: RunStarted, /) -> None:
        """Hear that a session hands out its first shard. Once a session."""

    def on_shard_committed(self, event: ShardCommitted, /) -> None:
        """Hear that a shard is complete and durable."""

    def on_dead_letter(self, event: DeadLetterKept, /) -> None:
        """Hear of a row that failed: the first 100 of each committed shard."""

    def on_run_end(self, event: RunEnded, /) -> None:
        """Hear how a session left the run, also one that ended with an error. Once a session."""


METHODS = ("on_run_start", "on_shard_committed", "on_dead_letter", "on_run_end")
"""The methods of a hook."""
