"""A processor of `ray.data.llm` is taken apart: what each step asks for becomes a stage, or is refused."""

from __future__ import annotations

import asyncio

import pytest

from batchrunner import BatchSpec
from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import CapabilityImportError, InvalidSpecError
from batchrunner.execute.processors import with_processors
from batchrunner.worker.work import Work

SOME = [{"__data": {"id": n}} for n in range(3)]


def expanded(name, **fields):
    stages = [{"processor": f"taken_apart:{name}", "name": "ask", **fields}, "capabilities:echo"]
    spec = BatchSpec(capability=stages, source="in", sink="out")
    return with_processors(
        Work(spec, "uid", "session", PlanFacts(0, "jsonl", "none", "rows", 1, 1), 1)
    )


def test_each_step_is_a_stage_with_what_the_processor_says_and_else_the_spec():
    """Its workers, batches and GPUs are those that its author chose; a step without a GPU takes none."""
    work = expanded("of_an_engine", num_cpus=0.5, batch_size=7, version="1")

    before, engine, tail, after, echo = work.spec.called.stages
    assert [stage.called for stage in work.spec.called.stages] == [
        *("ask.preprocess", "ask.Engine", "ask.Engine-2", "ask.postprocess"),
        "echo",
    ]
    assert (before.mode, before.num_cpus, before.num_gpus, before.version) == ("row", 0.25, 0, "1")
    assert (engine.mode, engine.one_to_one, engine.batch_format) == ("batch", True, "rows")
    assert (engine.batch_size, engine.concurrency, engine.max_concurrency) == (64, (1, 4), 8)
    assert (engine.num_gpus, engine.accelerator_type, engine.num_cpus) == (1, "A10G", 0.5)
    assert (tail.batch_size, tail.concurrency, tail.memory) == (64, 2, 1 << 30)
    assert (after.batch_size, after.num_cpus) == (7, 0.5)
    assert echo.target == "capabilities:echo"
    assert work.capability[-1] is None


@pytest.mark.parametrize(
    ("echo", "execution", "sizes"),
    [
        ({}, {}, [64, 64, 64, 64, 64]),
        ({"batch_size": 500}, {}, [64, 64, 64, 64, 500]),
        ({}, {"batch_size": 10}, [10, 64, 64, 10, 10]),
    ],
)
def test_all_steps_take_batches_of_the_size_of_the_processor(echo, execution, sizes):
    """With 1,024 rows before and after its 64, nothing was committed until all of a small source was through."""
    stages = [{"processor": "taken_apart:of_an_engine", "name": "ask"}]
    stages += [{"target": "capabilities:echo", **echo}]
    spec = BatchSpec(capability=stages, source="in", sink="out", execution=execution)
    facts = PlanFacts(0, "jsonl", "none", "rows", 1, 1)
    work = with_processors(Work(spec, "uid", "session", facts, 1))

    assert [stage.batch_size for stage in work.spec.stages] == sizes
    assert work.spec.batch_size == max(sizes)


def test_a_step_answers_rows_and_leaves_those_it_was_given_as_they_are():
    """Ray's code writes into the dicts of a batch, and refuses them a second time; a batch may be tried again."""
    engine = expanded("of_an_engine").capability[1]()

    for _ in range(2):
        assert asyncio.run(engine(SOME)) == [{"__data": {"id": n, "said": n}} for n in range(3)]
    assert SOME == [{"__data": {"id": n}} for n in range(3)]


def test_rows_with_different_keys_keep_theirs():
    """As one table they would lose what the first row does not have, or get nulls that they never had."""
    echo = expanded("that_echoes").capability[0]()
    rows = [{"a": 1}, {"a": 2, "b": None}, {"b": 3, "a": 4}, {"a": 5}]

    assert asyncio.run(echo(rows)) == rows


def test_a_row_that_an_engine_failed_for_fails():
    """Ray would write its error into the output, where the answers are."""
    after = expanded("of_an_engine").capability[3]

    assert after({"__data": {"id": 1, "__inference_error__": ""}}) == {"id": 1}
    with pytest.raises(Exception, match="too long"):
        after({"__data": {"id": 1, "__inference_error__": "too long"}})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("that_filters", "calls filter of its dataset"),
        ("of_functions", "which is none of ray.data.llm: give it as a target"),
        ("over_nodes", '{"distributed_executor_backend": "mp"}'),
        (
            "in_an_environment",
            "asks for runtime_env, which no stage has: give it as ray.runtime_env",
        ),
        ("that_is_none", "returns dict; let it return what ray.data.llm.build_processor does"),
        ("that_does_nothing", "does not return the dataset it mapped"),
        ("of_half_a_worker", "the step Engine has num_gpus: must be whole above 1"),
    ],
)
def test_what_no_stage_can_do_is_refused_with_a_way_out(name, says):
    """Else a step would be left out in silence, or run where it cannot."""
    with pytest.raises(InvalidSpecError) as caught:
        expanded(name)

    assert f"taken_apart:{name}" in str(caught.value)
    assert says in str(caught.value)


def test_a_factory_that_raises_is_named_with_its_place():
    """It is the user's code."""
    with pytest.raises(
        CapabilityImportError, match=r"taken_apart:that_raises.*no such model .*taken_apart.py:"
    ):
        expanded("that_raises")


def test_a_spec_without_processors_stays_the_same():
    """Nothing is imported in the driver."""
    spec = BatchSpec(capability=["nowhere:f"], source="in", sink="out")
    work = Work(spec, "uid", "session", PlanFacts(0, "jsonl", "none", "rows", 1, 1), 1)

    assert with_processors(work) is work


def test_a_processor_needs_ray():
    """Its own code starts actors, and would connect to any Ray on this machine."""
    with pytest.raises(InvalidSpecError, match=r"execution\.engine: ray"):
        BatchSpec(
            capability=[{"processor": "a:b"}],
            source="in",
            sink="out",
            execution={"engine": "local"},
        )
