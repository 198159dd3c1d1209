"""The advice: which stage bounds a run, and what to change, or nothing where the figures do not carry it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from batchrunner.driver.bottleneck import advice
from batchrunner.driver.run_setting import RunSetting, StageSetting
from batchrunner.spec import BatchSpec
from batchrunner.spec.rates import RateLimitSpec
from batchrunner.worker.stage_clock import StageClock, StageKind
from builders import a_spec

ON_RAY = RunSetting("ray", 8.0)
STAGES = RunSetting("ray", 8.0, has_stages=True)


def a_stage(name, waiting_input=0.0, calling=0.0, waiting_output=0.0, **more):
    """A stage by shares of 100 s of each of its workers."""
    workers = more.setdefault("workers", 1)
    times = (100.0 * workers * share for share in (waiting_input, calling, waiting_output))
    names = ("waiting_input", "calling", "waiting_output")
    return StageClock(name, **dict(zip(names, times, strict=True)), **{"loading": 30.0, **more})


def reading(busy, *, cpu=None):
    times = {"calling": 100 * busy, "waiting_output": 100 * (1 - busy)}
    return StageClock("read", StageKind.READ, **times, cpu=None if cpu is None else 100 * cpu)


def writing(busy, *, cpu=None):
    times = {"calling": 100 * busy, "waiting_input": 100 * (1 - busy)}
    return StageClock("write", StageKind.WRITE, **times, cpu=None if cpu is None else 100 * cpu)


def test_the_stage_that_others_wait_for_gets_more_cpus_or_a_larger_machine():
    """The sentence names the stage, its workers, which stage waits, and the way out in the spec's words."""
    prepare = a_stage("prepare", 0.02, 0.98, workers=6)
    classify = a_stage("classify", 0.41, 0.59)

    assert advice([reading(0.1), prepare, classify, writing(0.1)], STAGES) == (
        "prepare is busy 98 % of its time with 6 workers, classify waits for it 41 % of its time: "
        "more of its workers may start, for 7 of 8 CPUs are in use; if none do, make it faster"
    )
    full = advice([a_stage("prepare", 0.02, 0.98, workers=7), classify], STAGES)
    assert full.endswith(
        "all 8 CPUs are in use: take a larger machine or more of them, or make it faster"
    )


def test_a_stage_that_waits_for_room_is_not_the_bottleneck():
    """It is the one after it, for which it waits."""
    prepare = a_stage("prepare", 0.0, 0.3, 0.7, workers=3)
    classify = a_stage("classify", 0.01, 0.99)

    found = advice([reading(0.1), prepare, classify, writing(0.1)], STAGES)
    assert found.startswith(
        "classify is busy 99 % of its time with 1 worker, prepare waits until it takes more 70 % of its time"
    )


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        (0.9, "and the reader computes: take a larger machine"),
        (0.1, "and the reader for the storage: bring the source nearer"),
        (None, "and the reader computes: take a larger machine"),
    ],
)
def test_reading_bounds_a_run_whose_capability_waits_for_rows(cpu, why):
    """A storage that is slow, and a format that takes long to read, have different ways out."""
    found = advice([reading(0.95, cpu=cpu), a_stage("f", 0.6, 0.4), writing(0.1)], ON_RAY)

    assert found.startswith("reading bounds the run: f waits for rows 60 % of its time, " + why)


@pytest.mark.parametrize(
    ("cpu", "why"),
    [
        (0.9, "and the writer computes: take a larger"),
        (0.1, "and the writer for the storage: bring"),
    ],
)
def test_writing_bounds_a_run_whose_capability_waits_for_room(cpu, why):
    """As for reading, at the other end."""
    found = advice([reading(0.1), a_stage("f", 0.0, 0.4, 0.6), writing(0.95, cpu=cpu)], ON_RAY)

    assert found.startswith(
        "writing bounds the run: f waits 60 % of its time until its rows are written, " + why
    )


def test_the_capability_itself_may_be_the_bottleneck():
    """Then nothing around it makes the run faster, but more of it does."""
    clocks = [reading(0.1), a_stage("f", 0.01, 0.99, workers=4), writing(0.1)]

    assert advice(clocks, RunSetting("ray", 4.0)) == (
        "f is busy 99 % of its time with 4 workers: all 4 CPUs are in use: take a larger machine or more of them, "
        "or make it faster"
    )
    four = RunSetting("ray", 8.0, stages={"f": StageSetting(most=4)})
    assert advice(clocks, four).endswith(
        "4 of 8 CPUs are in use: raise execution.concurrency, which is 4"
    )


LIMIT = RateLimitSpec(requests="100/s", in_flight=9)
WAITING = {"cpu": 3.0}


@pytest.mark.parametrize(
    ("run", "own", "more", "way_out"),
    [
        # Threads of one process compute one at a time; Ray's workers are processes.
        (("local", 8.0), {}, {"cpu": 90.0}, "run more workers (execution.engine: ray), or make"),
        (
            ("local", 1.0),
            {},
            {"cpu": 90.0},
            "take a machine with more CPUs and execution.engine: ray",
        ),
        (
            ("local", 8.0, {"shards": 1}),
            {},
            {"cpu": 90.0},
            "there is 1 shard, each for one worker: cut",
        ),
        # What waits needs no CPU, but more calls at the same time.
        (
            ("local", 8.0),
            {},
            WAITING,
            "make it `async def`, and raise execution.max_concurrency, which is 8",
        ),
        (
            ("ray", 8.0),
            {},
            WAITING,
            "lower execution.num_cpus, which is 1, so that more of them fit, or have",
        ),
        (("ray", 8.0), {"most": 1}, WAITING, "): raise execution.concurrency, which is 1, or have"),
        (
            ("ray", 1.0),
            {"most": 1},
            WAITING,
            "raise execution.concurrency, which is 1, and lower execution.num",
        ),
        (("ray", 1.0), {"reserves_more": True}, WAITING, "busy 3 %): have more calls in flight"),
        (("ray", 8.0, {"shards": 1}), {}, WAITING, "busy 3 %): have more calls in flight"),
        # A worker has a shard, and only one.
        (
            ("ray", 8.0, {"shards": 1}),
            {"most": 1},
            {},
            "worker: cut the source smaller (source.shard",
        ),
        # A pin can be loosened where there is room.
        (("ray", 1.0), {"most": 1}, {}, "all 1 CPUs are in use: take a larger machine"),
        (("ray", 8.0, {"gpus": 2.0}), {"num_gpus": 1.0, "most": 1}, {}, "1 of 2 GPUs are in use"),
        (
            ("ray", 8.0, {"gpus": 1.0}),
            {"num_gpus": 1.0, "batch_size": 64},
            {"rows": 640, "calls": 10},
            "raise execution.batch_size, which is 64, while",
        ),
        (("ray", 8.0), {"num_gpus": 1.0}, {}, "give it batches (capability.mode: batch), or have"),
        (("local", 8.0), {"num_gpus": 1.0, "batch_size": 8}, {}, "GPUs (execution.engine: ray)"),
        # A limit that calls reach, one that answers do not, and one of places.
        (
            ("ray", 8.0, {"seconds": 100.0}),
            {"limit": LIMIT},
            {"limited": 90.0, "rows": 8800},
            "at 88 % of 100/s: raise execution.rate_limit.requests",
        ),
        (
            ("ray", 8.0, {"seconds": 100.0}),
            {"limit": LIMIT},
            {"limited": 90.0, "rows": 2000},
            "raise execution.rate_limit.in_flight, which is 9",
        ),
        (
            ("ray", 8.0, {"seconds": 100.0}),
            {"limit": RateLimitSpec(requests="100/s")},
            {"limited": 90.0, "rows": 2000},
            "at 20 % of execution.rate_limit.requests, 100/s: it refuses calls (429)",
        ),
        (
            ("ray", 8.0, {"seconds": 100.0, "tokens": 9000.0}),
            {"limit": RateLimitSpec(requests="100/s", tokens="100/s")},
            {"limited": 90.0, "rows": 20},
            "at 90 % of 100/s: raise execution.rate_limit.tokens",
        ),
        # More workers load as well.
        (("ray", 8.0), {}, {"loading": 300.0}, "have loaded for 75 % of their time"),
    ],
)
def test_the_way_out_names_what_applies_to_this_engine_and_this_machine(run, own, more, way_out):
    """A key is where the spec has it, and nothing is named that the machine has no room for."""
    engine, cpus, *rest = run
    setting = RunSetting(
        engine, cpus, stages={"f": StageSetting(**own)}, **(rest[0] if rest else {})
    )

    found = advice([reading(0.1), a_stage("f", 0.0, 1.0, **more), writing(0.1)], setting)
    assert way_out in found
    assert all(
        name in BatchSpec.model_fields[section].annotation.__args__[0].model_fields
        if section == "capability"
        else name in BatchSpec.model_fields[section].annotation.model_fields
        for section, name in re.findall(r"\b(execution|capability|source|sink)\.([a-z_]+)", found)
    )


@pytest.mark.parametrize(
    ("where", "own", "more", "way_out"),
    [
        ("ray", {"limit": LIMIT}, {"limited": 60.0, "rows": 8800}, "raise its rate_limit.requests"),
        ("ray", {}, WAITING, "its CPU is busy 3 %): lower its num_cpus"),
        ("local", {}, WAITING, "raise its concurrency, which is 1, or have"),
        (
            "local",
            {"most": 4},
            {"workers": 4, "cpu": 90.0},
            "run more workers (execution.engine: ray)",
        ),
        (
            "ray",
            {"num_gpus": 1.0},
            {"rows": 640, "calls": 10},
            "raise its batch_size, which is 64, while",
        ),
        (
            "ray",
            {"num_gpus": 1.0},
            {"rows": 120, "calls": 10},
            "its GPU gets 12 rows a call, and batch_size is 64: set its one_to_one",
        ),
        (
            "ray",
            {"num_gpus": 1.0, "one_to_one": True},
            {"rows": 120, "calls": 10},
            "raise its batch_size",
        ),
        (
            "ray",
            {"most": 2},
            {"workers": 2},
            "raise its concurrency, which is 2 (to a multiple of 2)",
        ),
    ],
)
def test_the_way_out_of_a_stage_is_a_field_of_that_stage(where, own, more, way_out):
    """Beside stages, a rate limit under `execution` is refused, and other fields there are those of all stages."""
    stages = {"classify": StageSetting(**{"batch_size": 64, **own})}
    setting = RunSetting(where, 8.0, has_stages=True, stages=stages, readers=2, seconds=100.0)
    if own.get("limit"):
        more = {**more, "calls": 8800}
    clocks = [reading(0.1), a_stage("classify", 0.0, 1.0, **more), writing(0.1)]

    assert way_out in advice(clocks, setting)


@pytest.mark.parametrize(
    ("setting", "way_out"),
    [
        (RunSetting("local", 8.0), "workers, or run more workers (execution.engine: ray)"),
        (RunSetting("local", 1.0), "(execution.engine: ray, with a lower execution.num_cpus)"),
        (RunSetting("ray", 1.0), "or lower execution.num_cpus, which is 1"),
        (
            RunSetting("ray", 8.0, stages={"f": StageSetting(most=1)}),
            "or raise execution.concurrency, which is 1",
        ),
        (RunSetting("ray", 8.0, shards=1), "or there is 1 shard, each for one worker: cut"),
        (STAGES, "or have 2 workers read and write (execution.concurrency: 2, and for each stage"),
    ],
)
def test_more_workers_read_where_that_is_possible(setting, way_out):
    """With stages the reading has workers of its own; on a machine that is full there are no more of them."""
    clocks = [reading(0.95, cpu=0.1), a_stage("f", 0.6, 0.4), writing(0.1)]

    assert way_out in advice(clocks, setting)


@pytest.mark.parametrize(
    ("cpu", "wait", "way_out"),
    [
        (
            8.0,
            89.0,
            "its machine is full, for it waits for a CPU 89 % of that: take a larger machine",
        ),
        (
            45.0,
            53.0,
            "its machine is full, for it waits for a CPU 53 % of that: take a larger machine",
        ),
        (60.0, 38.0, "more of its workers may start"),
        (3.0, 5.0, "it mostly waits itself (its CPU is busy 3 %): "),
    ],
)
def test_what_waits_for_a_cpu_is_not_told_to_wait_for_more(cpu, wait, way_out):
    """Where others use the machine, a stage that computes has its CPU 8 % of the time: more calls would wait, too."""
    clocks = [a_stage("prepare", 0.0, 1.0, cpu=cpu, cpu_wait=wait), a_stage("classify", 0.9, 0.1)]

    assert way_out in advice(clocks, STAGES)


def test_a_reader_that_waits_for_a_cpu_does_not_wait_for_the_storage():
    """A nearer source would change nothing."""
    read = replace(reading(0.95, cpu=0.1), cpu_wait=80.0)
    assert "and the reader computes" in advice([read, a_stage("f", 0.6, 0.4)], ON_RAY)


@pytest.mark.parametrize(
    ("step", "way_out"),
    [
        (
            "HttpRequest",
            "(its CPU is busy 3 %): raise concurrency in the configuration of the processor",
        ),
        (
            "postprocess",
            "(its CPU is busy 3 %): do what it waits for in a stage of its own, which may be",
        ),
    ],
)
def test_a_step_of_a_processor_is_given_no_field_that_it_does_not_have(tmp_path, step, way_out):
    """Its code is Ray's, which no one makes `async def`, and a lower num_cpus starts no worker more."""
    stages = ["jobs:a", {"processor": "jobs:asking", "name": "ask.it"}]
    spec = a_spec(tmp_path, capability={"stages": stages}, execution={"engine": "ray"})
    setting = replace(RunSetting.of_spec(spec, name=""), cpus=8.0)
    clocks = [a_stage("a", 0.0, 0.1, 0.9), a_stage(f"ask.it.{step}", 0.0, 1.0, **WAITING)]

    assert way_out in advice(clocks, setting)


def test_stages_that_wait_for_each_other_have_batches_of_too_different_sizes():
    """The next call is not made before there is room for all of its rows; until then the other stage has none."""
    prepare = a_stage("prepare", 0.33, 0.49, 0.17, rows=4000, calls=4)
    classify = a_stage("classify", 0.85, 0.15, rows=4000, calls=63)

    assert advice([reading(0.0), prepare, classify], STAGES) == (
        "prepare gets 1,000 rows a call, and classify 63, so that they wait for each other (17 % and 85 % of their "
        "time): lower the batch_size of prepare"
    )


def test_a_gpu_that_gets_small_batches_is_told_of_although_it_waits():
    """Each of its calls costs nearly as much as a full one."""
    setting = RunSetting(
        "ray", 8.0, has_stages=True, stages={"classify": StageSetting(num_gpus=1, batch_size=64)}
    )
    clocks = [a_stage("prepare", 0.0, 0.5, 0.5), a_stage("classify", 0.3, 0.7, rows=90, calls=10)]

    assert advice(clocks, setting).startswith("classify: its GPU gets 9 rows a call")


@pytest.mark.parametrize(
    ("clocks", "why"),
    [
        ([], "nothing was heard"),
        ([reading(1.0), writing(0.1)], "no stage was heard of"),
        ([StageClock("f", calling=9.0)], "too short"),
        ([a_stage("f", 0.0, 1.0, workers=20).plus(StageClock("f", workers=400))], "too short each"),
        ([reading(0.2), a_stage("f", 0.6, 0.4), writing(0.1)], "the reader waits, too: no shards"),
        ([reading(0.1), a_stage("f", 0.0, 0.4, 0.6), writing(0.2)], "and so does the writer"),
        ([a_stage("a", 0.05, 0.95), a_stage("b", 0.05, 0.95)], "nothing waits"),
        ([a_stage("a", 0.4, 0.5, 0.1), a_stage("b", 0.5, 0.5)], "no stage is busy"),
        ([StageClock("f", loading=900.0)], "it has only loaded"),
    ],
)
def test_there_is_no_advice_where_the_figures_do_not_carry_it(clocks, why):
    """A wrong hint costs more than none."""
    assert advice(clocks, STAGES) == "", why


def test_what_a_spec_gives_its_stages_is_known_to_the_advice():
    """What a stage does not give, `execution` gives; without stages, the capability is the one there is."""
    execution = {"num_gpus": 1, "batch_size": 64, "concurrency": [1, 4], "num_cpus": 2}
    plain = RunSetting.of_spec(a_spec(Path("x"), execution=execution), name="double")
    stages = [
        "a:prepare",
        {"target": "a:classify", "num_gpus": 0.5, "mode": "row", "concurrency": 3},
    ]
    staged = RunSetting.of_spec(
        a_spec(Path("x"), capability=stages, execution={"batch_size": 64}), name="a"
    )

    assert plain.stages == {"double": StageSetting(2.0, 1.0, batch_size=64, most=4)}
    assert (plain.engine, plain.cpus, plain.has_stages) == ("ray", None, False)
    assert staged.stages == {
        "prepare": StageSetting(batch_size=64),
        "classify": StageSetting(num_gpus=0.5, most=3),
    }
    assert staged.has_stages


def test_workers_that_died_still_count():
    """Their time was spent; a run whose workers are all gone has no number of workers to name."""
    found = advice([a_stage("f", 0.0, 1.0).plus(StageClock("f", workers=-1))], ON_RAY)

    assert found.startswith("f is busy 100 % of its time: ")


def test_reading_may_bound_a_run_that_does_all_in_one_thread():
    """The calls wait for a third of the time, and it is just this third in which the worker reads."""
    found = advice([reading(0.33), a_stage("f", 0.33, 0.64, 0.03), writing(0.03)], ON_RAY)

    assert found.startswith("reading bounds the run: f waits for rows 33 % of its time")
