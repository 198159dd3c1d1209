"""Processors of `ray.data.llm`, taken apart: each of their steps becomes a stage of ours.

A processor maps a dataset to a dataset, by calls of its `map` and `map_batches`. It is called with a recorder
in the place of a dataset. What it records, the stages then do with our rows, without a conversion to
Ray's blocks: each step gives one row for each, which Ray's own code checks (`StatefulStageUDF`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchrunner.capability import load_target
from batchrunner.errors import CapabilityImportError, InvalidSpecError, describe
from batchrunner.execute.processor_steps import StepError, batch_step, row_step, settings_of
from batchrunner.spec import CapabilitySpec, StageSpec
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import contained, place_in_code
from batchrunner.worker.work import Work


def with_processors(work: Work) -> Work:
    """Return *work* with the steps of each processor as stages of their own; *work* itself if it has none.

    Each factory is called once, in this process, which has to be connected to Ray: to count the use
    of processors, Ray's code starts an actor, and would connect to any Ray on this machine.

    Raises:
        CapabilityImportError: A factory cannot be imported, or raises.
        InvalidSpecError: What it returns is no processor of `ray.data.llm`, or does what no stage can.
    """
    stages = work.spec.called.stages or ()
    if not any(stage.processor for stage in stages):
        return work
    given = work.capability or (None,) * len(stages)
    parts = [
        _parts_of(work, number) if stage.processor else [(stage, given[number])]
        for number, stage in enumerate(stages)
    ]
    each = [pair for some in parts for pair in some]
    called = CapabilitySpec(
        stages=tuple(stage for stage, _ in each),
        deterministic=work.spec.called.deterministic,
        usage=work.spec.called.usage,
    )
    spec = work.spec.model_copy(update={"capability": called})
    return replace(work, spec=spec, capability=tuple(code for _, code in each))


def _parts_of(work: Work, number: int) -> list[tuple[StageSpec, Any]]:
    stage = (work.spec.called.stages or ())[number]
    try:
        recorded = _recorded(stage.code)
        size = _usual_batch_size(work, recorded)
        return [(_stage(stage, step, size), step.code) for step in _named(recorded)]
    except StepError as error:
        loc = ("capability", "stages", number, "processor")
        raise work.spec.refusal(loc, f"{stage.code}: {error}") from error


def _recorded(target: str) -> Sequence[_Step]:
    factory, recorder = load_target(target), _Recorder()
    try:
        returned = contained(lambda: _mapped(factory(), recorder))
    except StepError:
        raise
    except Exception as error:  # the user's factory may raise anything
        place = f" (at {at})" if (at := place_in_code(error)) else ""
        why = scrubbed(describe(error))
        raise CapabilityImportError(
            f"the processor {target} cannot be built: {why}{place}"
        ) from error
    if returned is not recorder or not recorder.steps:
        raise StepError("is no processor of ray.data.llm: it does not return the dataset it mapped")
    steps: list[_Step] = recorder.steps
    return steps


def _mapped(processor: Any, dataset: _Recorder) -> Any:
    if not callable(processor):
        raise StepError(
            f"returns {type(processor).__name__}; let it return what ray.data.llm.build_processor does"
        )
    return processor(dataset)


@dataclass(frozen=True, slots=True)
class _Step:
    """What a processor asks of a dataset once.

    Attributes:
        name: In the name of its stage.
        fields: What its stage is given.
        code: What its stage calls: a function, or a class without arguments.
    """

    name: str
    fields: Mapping[str, Any]
    code: Any


class _Recorder:
    """Stands in for a `ray.data.Dataset`.

    Attributes:
        steps: What was asked of it.
    """

    def __init__(self) -> None:
        self.steps: list[_Step] = []

    def map(self, fn: Callable[..., Any], **options: Any) -> _Recorder:
        name = "postprocess" if self.steps else "preprocess"
        return self._with(name, {"mode": "row", **settings_of(options)}, row_step(fn))

    def map_batches(self, fn: Any, **options: Any) -> _Recorder:
        code = batch_step(fn, options.pop("fn_constructor_kwargs", None) or {})
        fields = {"batch_format": "rows", "one_to_one": True, **settings_of(options)}
        return self._with(code.__name__.removesuffix("UDF"), fields, code)

    map_batches_internal = map_batches

    def _with(self, name: str, fields: Mapping[str, Any], code: Any) -> _Recorder:
        self.steps.append(_Step(name, fields, code))
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise StepError(
            f"calls {name} of its dataset; only processors that call map and map_batches alone can be stages"
        )


def _named(steps: Sequence[_Step]) -> Iterator[_Step]:
    """Yield *steps* with names that differ."""
    seen = Counter[str]()
    for step in steps:
        seen[step.name] += 1
        times = seen[step.name]
        yield step if times == 1 else replace(step, name=f"{step.name}-{times}")


def _usual_batch_size(work: Work, steps: Sequence[_Step]) -> dict[str, int]:
    """Return the `batch_size` of a step that is given none: the most that another one has, unless `execution` says."""
    given = [step.fields["batch_size"] for step in steps if step.fields.get("batch_size")]
    if not given or "batch_size" in work.spec.execution.model_fields_set:
        return {}
    return {"batch_size": max(given)}


def _stage(stage: StageSpec, step: _Step, usual: Mapping[str, Any]) -> StageSpec:
    """Return the stage of *step*: what the processor says, then what *stage* says of all its steps, then *usual*."""
    own = {name: getattr(stage, name) for name in stage.model_fields_set - {"processor", "name"}}
    name = f"{stage.called}.{step.name}"
    try:
        return StageSpec(**{**usual, **own, **step.fields, "name": name, "target": stage.processor})
    except InvalidSpecError as error:
        _, *complaints, _ = map(str.strip, str(error).splitlines())
        raise StepError(f"the step {step.name} has {'; '.join(complaints)}") from error
