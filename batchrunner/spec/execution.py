"""The sections of a spec that say how the work is done, and what happens to failures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from batchrunner.spec.fields import (
    Budget,
    Concurrency,
    Count,
    Duration,
    Gpus,
    Resources,
    Share,
    Size,
    Word,
)
from batchrunner.spec.rates import Money, Price, RateLimitSpec
from batchrunner.spec.retrying import RetrySpec
from batchrunner.spec.section import NEUTRAL, Section

_LONGEST_CALL = 24 * 24 * 3600.0
"""Longest `batch_timeout`, in seconds: `poll` counts milliseconds in 32 bits, hardly more."""


def _with_strings(runtime_env: dict[str, Any]) -> dict[str, Any]:
    variables = runtime_env.get("env_vars") or {}
    if not isinstance(variables, dict):
        raise ValueError("env_vars must be a mapping")  # noqa: TRY004 - pydantic collects ValueErrors only
    for name in [name for name, value in variables.items() if not isinstance(value, str)]:
        raise ValueError(f"env_vars.{name} must be a string: put it in quotes")
    return runtime_env


def _no_longer_than_poll(seconds: float) -> float:
    if seconds > _LONGEST_CALL:
        raise ValueError('must be at most "24d"')
    return seconds


class ExecutionSpec(Section):
    """How the work is done, in Ray's words. Of these, only the batch format decides the output."""

    engine: Annotated[Literal["ray", "local"], NEUTRAL] = Field(
        default="ray",
        description="`local` runs everything in this process, to debug: a row that crashes it ends "
        "the run, and is found by the third run of the same line.",
    )
    batch_size: Annotated[Count, NEUTRAL] = Field(
        default=1024,
        description="Rows of a batch. A batch goes over all files of a shard, and over the end of a shard only with "
        "`capability.one_to_one`; in mode `row` it does not, since no call would be larger.",
    )
    batch_format: Literal["rows", "numpy", "pandas", "pyarrow"] = Field(
        default="rows", description="What a batch is; `rows` is a list of dicts."
    )
    concurrency: Annotated[Concurrency | None, NEUTRAL] = Field(
        default=None,
        description="Workers: a number, or [min, max]; by default, what fits. With stages, how many workers "
        "read, write, and share those of the stages: by default, one.",
    )
    num_cpus: Annotated[Share, NEUTRAL] = Field(default=1.0, description="CPUs of a worker.")
    num_gpus: Annotated[Gpus, NEUTRAL] = Field(
        default=0.0, description="GPUs of a worker; a share such as 0.5 works."
    )
    memory: Annotated[Size | None, NEUTRAL] = Field(
        default=None,
        description='Memory to reserve for a worker, such as "4GiB". A capability that runs in a '
        "process of its own may allocate no more; by default, 80 % of the machine's.",
    )
    accelerator_type: Annotated[Word | None, NEUTRAL] = Field(
        default=None, description="Kind of accelerator a worker needs, by Ray's name."
    )
    resources: Annotated[Resources, NEUTRAL] = Field(
        default_factory=dict, description="Custom Ray resources of a worker."
    )
    max_runtime: Annotated[Duration | None, NEUTRAL] = Field(
        default=None,
        description='Stop cleanly after this time, such as "3h50m"; the same line continues. '
        "Kept in seconds.",
    )
    grace_period: Annotated[Duration, NEUTRAL] = Field(
        default=25.0,
        description="After SIGTERM, Ctrl-C or `max_runtime` the process is gone within this time, "
        "whatever hangs; up to 4.5 s later if a call holds the interpreter, as some C code does. Shards "
        "in flight may be finished in most of it. After its report, too, it may take no longer to exit.",
    )
    max_concurrency: Annotated[Count, NEUTRAL] = Field(
        default=8,
        description="Calls of an `async def` capability in flight, per worker: batches, or rows in mode `row`.",
    )
    journal_answers: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="In mode `row`: keep each answer in the checkpoint until its shard is committed, so that "
        "a crash asks for none again. For capabilities that cost more than a write.",
    )
    rate_limit: Annotated[RateLimitSpec | None, NEUTRAL] = Field(
        default=None,
        description="How fast the capability may be called, by all workers of the run together: "
        "{requests: 500/min, tokens: 200k/min, in_flight: 64}. Calls that the service refuses (429) slow all "
        "of them down, and its `Retry-After` stops them for so long.",
    )
    prices: Annotated[dict[str, Price], NEUTRAL] = Field(
        default_factory=dict,
        description="What a unit of the usage that answers report costs, by its name there: "
        "{prompt_tokens: 0.15/1M, completion_tokens: 0.60/1M}. Without prices, the `cost` in the usage counts.",
    )
    max_cost: Annotated[Money | None, NEUTRAL] = Field(
        default=None,
        description="Stop cleanly, with exit code 75, once the run has cost so much, over all its sessions; the "
        "same line with a higher limit continues. Calls that are under way then are paid, too.",
    )


class RaySpec(Section):
    """Which Ray to use, and what its workers need."""

    address: Word = Field(
        default="local", description="`local` starts one for this run; or a cluster's address."
    )
    runtime_env: Annotated[dict[str, Any], AfterValidator(_with_strings)] = Field(
        default_factory=dict, description="Ray's runtime environment; `env_vars` are never shown."
    )


class ErrorsSpec(Section):
    """What to do about rows that cannot be read, mapped or written."""

    on_row_error: Literal["record", "fail"] = Field(
        default="record",
        description="`record` makes the row a dead letter, with its error, and goes on; `fail` fails its shard.",
    )
    max_row_errors: Annotated[Budget, NEUTRAL] = Field(
        default=0.001,
        description="Dead letters that a run may have before it fails: a count such as 10, or a share of "
        "its rows such as 0.001 or 0.1%.",
    )
    retry: RetrySpec = Field(
        default_factory=RetrySpec, description="How often to try again before giving up."
    )
    batch_timeout: Annotated[
        Annotated[Duration, AfterValidator(_no_longer_than_poll)] | None, NEUTRAL
    ] = Field(
        default=None,
        description="Longest time that a call of the capability may take, such as 30s. It then runs "
        "in a process of its own, which is killed when time is up.",
    )

    row_timeout: Annotated[Duration | None, NEUTRAL] = Field(
        default=None,
        description="Longest time that one call of an `async def` capability in mode `row` may take, such "
        "as 30s. The call is then cancelled, and was one attempt at its row. For others: `batch_timeout`.",
    )

    def allowed(self, rows: float) -> float:
        """Return how many of *rows* may become dead letters."""
        most = self.max_row_errors
        return most if isinstance(most, int) else most * rows
