"""The advice: which stage bounds a run, and what to change, or nothing where the figures do not carry it."""

from pathlib import Path

import pytest

from batchrunner.driver.bottleneck import RunSetting, StageSetting, advice
from batchrunner.worker.stage_clock import StageClock, StageKind
from builders import a_spec

ON_RAY = RunSetting("ray", 8.0)
STAGES = RunSetting("ray", 8.0, has_stages=True)


def a_stage(name, waiting_input=0.0, calling=0.0, waiting_output=0.0, **more):
    """A stage by shares of 100 s of each of its workers."""
    workers = more.setdefault("workers", 1)
    times = (100.0 * workers * share for share in (waiting_input, calling, waiting_output))
    names = ("waiting_input", "calling", "waiting_output")
    return StageClock(name, **dict(zip(names, times, strict=True)), loading=30.0, **more)


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
        "give it more CPUs: 7 of 8 are in use"
    )
    full = advice([a_stage("prepare", 0.02, 0.98, workers=7), classify], STAGES)
    assert "all 8 CPUs are in use: a larger machine" in full


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
        (0.9, "and the reader computes: run more workers"),
        (0.1, "and the reader for the storage: bring the source nearer"),
        (None, "and the reader computes: run more workers"),
    ],
)
def test_reading_bounds_a_run_whose_capability_waits_for_rows(cpu, why):
    """A storage that is slow, and a format that takes long to read, have different ways out."""
    found = advice([reading(0.95, cpu=cpu), a_stage("f", 0.6, 0.4), writing(0.1)], ON_RAY)

    assert found.startswith("reading bounds the run: f waits for rows 60 % of its time, " + why)


@pytest.mark.parametrize(
    ("cpu", "why"),
    [(0.9, "and the writer computes: run more"), (0.1, "and the writer for the storage: bring")],
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

    assert advice(clocks, ON_RAY) == (
        "f is busy 99 % of its time with 4 workers: give it more CPUs: 4 of 8 are in use"
    )
    four = RunSetting("ray", 8.0, stages={"f": StageSetting(most=4)})
    assert advice(clocks, four).endswith("raise execution.concurrency, which is 4")
    assert "engine: ray" in advice(clocks, RunSetting("local", 8.0))


@pytest.mark.parametrize(
    ("more", "own", "way_out"),
    [
        ({"limited": 60.0}, {}, "raise execution.rate_limit"),
        ({"cpu": 3.0}, {}, "its CPU is busy 3 %): lower its num_cpus"),
        ({"rows": 640, "calls": 10}, {"num_gpus": 1.0}, "raise its batch_size while"),
        (
            {"rows": 120, "calls": 10},
            {"num_gpus": 1.0},
            "its GPU gets 12 rows a call, and batch_size is 64",
        ),
        ({"workers": 2}, {"most": 2}, "raise its concurrency, which is 2"),
    ],
)
def test_the_way_out_depends_on_what_holds_the_stage_up(more, own, way_out):
    """A rate limit, a service that answers slowly, a GPU with small batches, a cap in the spec."""
    setting = RunSetting("ray", 8.0, True, {"classify": StageSetting(batch_size=64, **own)})
    clocks = [reading(0.1), a_stage("classify", 0.0, 1.0, **more), writing(0.1)]

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
    setting = RunSetting("ray", 8.0, True, {"classify": StageSetting(num_gpus=1, batch_size=64)})
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

    assert plain.stages == {"double": StageSetting(2.0, 1.0, 64, 4)}
    assert (plain.engine, plain.cpus, plain.has_stages) == ("ray", None, False)
    assert staged.stages == {
        "prepare": StageSetting(1.0, 0.0, 64, None),
        "classify": StageSetting(1.0, 0.5, None, 3),
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
