"""The stages of a capability: each has its own code, size of batch, and resources."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from batchrunner.spec.execution import ExecutionSpec
from batchrunner.spec.fields import (
    Concurrency,
    Count,
    Files,
    Gpus,
    Kwargs,
    Name,
    Resources,
    Share,
    Size,
    Target,
    UsagePath,
    Word,
)
from batchrunner.spec.rates import RateLimitSpec
from batchrunner.spec.section import NEUTRAL, Section

_READ: Final = "read"
"""Where a row failed that could not be read: no stage is called that."""

_FROM_EXECUTION = (
    "batch_format",
    "num_gpus",
    "memory",
    "accelerator_type",
    "resources",
    "concurrency",
    "max_concurrency",
)
_OF_CODE = {
    "mode": "batch",
    "fn_kwargs": {},
    "fn_constructor_kwargs": {},
    "one_to_one": False,
    "usage": None,
}
"""Fields of a stage's own code, with their defaults: a processor has none of it."""


class StageSpec(Section):
    """A stage of a capability. Short form: the target alone.

    What a stage does not give, `execution` gives for all of them.
    """

    stands_for = "target"

    # Neutral: dead letters and reports say it, and no row does.
    name: Annotated[Name | None, NEUTRAL] = Field(
        default=None,
        description="Its name in dead letters and reports; by default, that of the function or class.",
    )
    target: Target | None = Field(
        default=None,
        description='What to import: "package.module:attribute", a function or a class.',
    )
    processor: Target | None = Field(
        default=None,
        description="In place of a target, a function without arguments that returns a processor of "
        "`ray.data.llm`, as `build_processor` does. With the engine `ray`.",
    )
    mode: Literal["batch", "row"] = Field(
        default="batch", description="What it is called with: a `batch` of rows, or one `row`."
    )
    fn_kwargs: Kwargs = Field(default_factory=dict, description="Keyword arguments of every call.")
    fn_constructor_kwargs: Kwargs = Field(
        default_factory=dict,
        description="Keyword arguments of the class, which is built once per worker of the stage.",
    )
    version: str | None = Field(
        default=None, description="Stands in for the hash of this stage's code."
    )
    # Neutral, since not the names decide: the fingerprint has digests of the content besides.
    files: Annotated[Files | None, NEUTRAL] = Field(
        default=None,
        description="Files that this stage reads, such as weights, and whose content decides the output.",
    )
    usage: Annotated[UsagePath | None, NEUTRAL] = Field(
        default=None,
        description="Where an answer of this stage says what it used, as `capability.usage` says it for all of "
        "them. What is said here counts even if the row had it before; else that is taken to be passed on.",
    )
    one_to_one: Annotated[bool, NEUTRAL] = Field(
        default=False,
        description="In mode `batch`: each row gives exactly one row, and they come in the same order. "
        "The batches of the stages after it then hold rows of several batches and shards, and a row that "
        "fails in one of them is found without calling the earlier stages again. Their number is checked. "
        "In mode `row` that is so without it.",
    )
    batch_size: Annotated[Count | None, NEUTRAL] = Field(
        default=None,
        description="Rows of a batch, at most; by default those of `execution.batch_size` if that is given, else "
        "the most that another stage gives. In mode `row`, the most that a worker gets at once: it gets as many as "
        "take about a second.",
    )
    batch_format: Literal["rows", "numpy", "pandas", "pyarrow"] | None = Field(
        default=None, description="What a batch is; `rows` is a list of dicts."
    )
    num_cpus: Annotated[Share | None, NEUTRAL] = Field(
        default=None,
        description="CPUs of a worker of this stage; by default 1, or an equal share where the cluster "
        "has fewer CPUs than there are stages.",
    )
    num_gpus: Annotated[Gpus | None, NEUTRAL] = Field(
        default=None, description="GPUs of a worker of this stage; a share such as 0.5 works."
    )
    memory: Annotated[Size | None, NEUTRAL] = Field(
        default=None, description='Memory to reserve for a worker of this stage, such as "4GiB".'
    )
    accelerator_type: Annotated[Word | None, NEUTRAL] = Field(
        default=None, description="Kind of accelerator a worker of this stage needs, by Ray's name."
    )
    resources: Annotated[Resources | None, NEUTRAL] = Field(
        default=None, description="Custom Ray resources of a worker of this stage."
    )
    concurrency: Annotated[Concurrency | None, NEUTRAL] = Field(
        default=None,
        description="Workers of this stage: a number, or [min, max]; by default, as many as it needs.",
    )
    max_concurrency: Annotated[Count | None, NEUTRAL] = Field(
        default=None, description="Calls of an `async def` stage in flight, per worker of it."
    )

    rate_limit: Annotated[RateLimitSpec | None, NEUTRAL] = Field(
        default=None,
        description="How fast this stage may be called, by all its workers together, as `execution.rate_limit` "
        "says for a capability without stages.",
    )

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if (self.target is None) == (self.processor is None):
            raise ValueError("must have exactly one of target, processor")
        if self.processor and (extra := [n for n, v in _OF_CODE.items() if getattr(self, n) != v]):
            raise ValueError(f"must have no {extra[0]}, which goes with a target only")
        if self.processor and self.rate_limit:
            raise ValueError("must have no rate_limit: the processor makes its calls itself")
        if self.one_to_one and self.mode == "row":
            raise ValueError(
                "must have no one_to_one: in mode row it is known which row gives which"
            )
        return self

    @property
    def called(self) -> str:
        """The name: the one that is given, or that of the function or class."""
        return self.name or self.code.rpartition(":")[2].rpartition(".")[2]

    @property
    def code(self) -> str:
        """The target, or the processor."""
        return self.target or self.processor or ""

    @property
    def keeps_origins(self) -> bool:
        """Whether it is known of which input row each of its output rows is."""
        return self.mode == "row" or self.one_to_one

    def within(self, execution: ExecutionSpec, *, batch_size: int) -> StageSpec:
        """Return the stage with what it does not give as *execution* gives it, and with that *batch_size*.

        `num_cpus` stays None where neither gives it: the engine decides.
        """
        given = {name: getattr(execution, name) for name in _FROM_EXECUTION if self._lacks(name)}
        if self.batch_size is None:
            given["batch_size"] = batch_size
        if self.num_cpus is None and "num_cpus" in execution.model_fields_set:
            given["num_cpus"] = execution.num_cpus
        return self.model_copy(update={"name": self.called, **given})

    def _lacks(self, name: str) -> bool:
        return getattr(self, name) is None


def usual_batch_size(stages: Sequence[StageSpec], execution: ExecutionSpec) -> int:
    """Return the rows of a batch of a stage that does not say: by *execution*, else as many as another one says."""
    given = [stage.batch_size for stage in stages if stage.batch_size]
    if not given or "batch_size" in execution.model_fields_set:
        return execution.batch_size
    return max(given)


def check_names(stages: Sequence[StageSpec]) -> None:
    """Check that the names of *stages* differ, and that none is that of the reader.

    Raises:
        ValueError: Two have one name, or one is called "read".
    """
    counts = Counter(stage.called for stage in stages)
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        raise ValueError(
            f"must have names that differ: {count} are called {name!r}, give each a name"
        )
    if _READ in counts:
        raise ValueError(f"must not be called {_READ!r}, as the reader is: give that stage a name")


def check_workers(stages: Sequence[StageSpec], workers: int | tuple[int, int] | None) -> None:
    """Check that *workers*, each with an equal share of the workers of each stage, can have that.

    Raises:
        ValueError: Their number is open, or does not divide that of the workers of a stage.
    """
    if isinstance(workers, tuple):
        raise ValueError(  # noqa: TRY004 - pydantic collects ValueErrors only
            "must have one number as execution.concurrency beside stages, not a least and a most: so "
            "many workers read and write, and share the workers of each stage; 1 is usual"
        )
    for stage in stages:
        asked = stage.concurrency if isinstance(stage.concurrency, tuple) else (stage.concurrency,)
        if any(number and number % (workers or 1) for number in asked):
            raise ValueError(
                f"must have a concurrency of stage {stage.called!r} that execution.concurrency divides: "
                f"each of its {workers} workers has as many workers of each stage"
            )


def _some(stages: tuple[StageSpec, ...]) -> tuple[StageSpec, ...]:
    if not stages:
        raise ValueError("must have at least one stage")
    return stages


Stages = Annotated[
    tuple[StageSpec, ...], AfterValidator(_some), Field(json_schema_extra={"minItems": 1})
]
