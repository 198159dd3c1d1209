"""A capability of several stages gives what its functions give one after the other, whatever fails."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest

import staged
from batchrunner import BatchRunner
from batchrunner.errors import InvalidSpecError, SpecChangedError
from batchrunner.verify import Checks, verify
from builders import a_source, a_spec, parts, read_part, rows, rows_out, write_jsonl

LENIENT = {"max_row_errors": 1.0, "retry": {"max_attempts": 1}}


def stage(function, **fields):
    return {"target": f"staged:{function}", **fields}


def a_run(folder, stages, *, errors=LENIENT, **execution):
    spec = a_spec(
        folder,
        capability=[stage(one) if isinstance(one, str) else one for one in stages],
        execution={"engine": "local", "batch_size": 16, **execution},
        errors=errors,
    )
    report = BatchRunner(spec).run()
    return spec, report


def dead_letters(folder):
    found = folder.glob("out/_checkpoint/errors/*.jsonl")
    lines = [json.loads(line) for path in sorted(found) for line in path.read_text().splitlines()]
    return {json.loads(one["raw"])["id"]: (one["stage"], one["error"]) for one in lines}


def said(folder):
    """What each dead letter says, by the id of its row."""
    found = folder.glob("out/_checkpoint/errors/*.jsonl")
    lines = [json.loads(line) for path in found for line in path.read_text().splitlines()]
    return {json.loads(one["raw"])["id"]: one["message"] for one in lines}


def failing(folder, fails, *, count=100, files=1):
    """Rows of which those in *fails* make a stage fail."""
    made = [
        {**row, **({"fails": fails[row["id"]]} if row["id"] in fails else {})}
        for row in rows(0, count)
    ]
    for number in range(files):
        some = made[number * count // files : (number + 1) * count // files]
        write_jsonl(folder / f"in/{number:03}.jsonl", some)
    return made


def composed(made, *functions, but=()):
    """What the functions give by hand, one row at a time."""
    found = []
    for row in made:
        if row["id"] not in but:
            found += _through([row], functions)
    return found


def _through(batch, functions):
    for function in functions:
        batch = function(batch)
    return batch


def by_rows(function):
    def of_batch(batch):
        out = []
        for row in batch:
            given = function(row)
            out += given if isinstance(given, list) else [given]
        return out

    return of_batch


def test_stages_give_what_their_functions_give_one_after_the_other(tmp_path):
    """In value and in order, over batches and files, with a stage of each mode."""
    made = failing(tmp_path, {}, count=300, files=3)
    _, report = a_run(
        tmp_path,
        [
            stage("first", batch_size=7),
            stage("three_of_each", mode="row", batch_size=20),
            stage("second", batch_size=64),
            stage("only_even"),
        ],
    )

    assert report.ok
    functions = [staged.first, by_rows(staged.three_of_each), staged.second, staged.only_even]
    assert rows_out(tmp_path / "out") == composed(made, *functions)


def test_a_call_that_overtakes_another_one_changes_no_order(tmp_path):
    """Several workers of a stage are done in any order."""
    staged._calls.clear()
    made = failing(tmp_path, {}, count=200, files=4)
    _, report = a_run(
        tmp_path,
        [
            stage("slow_for_the_first", batch_size=8, concurrency=3, one_to_one=True),
            "backwards",
            "second",
        ],
    )

    assert report.ok
    expected = [
        row
        for file in range(4)
        for start in (0, 16, 32, 48)
        for row in reversed(made[file * 50 : file * 50 + 50][start : start + 16])
    ]
    assert rows_out(tmp_path / "out") == staged.second(expected)


@pytest.mark.parametrize(
    "last", [stage("by_row", name="last", mode="row"), stage("second", one_to_one=True)]
)
def test_what_a_slow_stage_has_done_is_committed_before_it_has_done_the_rest(tmp_path, last):
    """The stages that say nothing waited for 1,024 rows, whatever the slow one took at once."""
    a_source(tmp_path / "in", shards=100, rows_per_shard=2)
    waits = {"after": 100, "folder": str(tmp_path / "out")}
    spec = a_spec(
        tmp_path,
        capability=[
            stage("by_row", mode="row"),
            stage("waits_for_a_commit", batch_size=1, one_to_one=True, fn_kwargs=waits),
            last,
        ],
        source={"uri": str(tmp_path / "in"), "shard": {"files": 1}},
        execution={"engine": "local"},
    )

    assert BatchRunner(spec).run().rows_failed == 0
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(200))


def test_small_files_share_the_batches_of_later_stages(tmp_path):
    """A model is not called with ten rows because the files have ten rows."""
    a_source(tmp_path / "in", shards=60, rows_per_shard=5)
    path = tmp_path / "calls"
    spec = a_spec(
        tmp_path,
        capability=[
            stage("by_row", mode="row", batch_size=5),
            stage("second", batch_size=32, one_to_one=True, fn_kwargs={"path": str(path)}),
        ],
        source={"uri": str(tmp_path / "in"), "shard": {"files": 1}},
        execution={"engine": "local", "batch_size": 5},
    )

    assert BatchRunner(spec).run().ok
    assert [len(read_part(part)) for part in parts(tmp_path / "out")] == [5] * 60
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(300))
    sizes = list(map(len, staged.noted(path)))
    assert max(sizes) == 32
    assert sum(sizes) / len(sizes) > 16


def test_a_stage_that_keeps_no_origins_gets_rows_of_one_shard_in_their_order(tmp_path):
    """It may drop rows, or look at their neighbours."""
    failing(tmp_path, {}, count=200, files=2)
    path = tmp_path / "calls"
    a_run(
        tmp_path,
        [
            stage("by_row", mode="row", batch_size=3, concurrency=3),
            stage("only_even", batch_size=16, fn_kwargs={"path": str(path)}),
        ],
        batch_size=40,
    )

    for ids in staged.noted(path):
        assert all(b == a + 1 for a, b in pairwise(ids))
        assert ids[0] // 100 == ids[-1] // 100


FAILS = {
    3: "first",
    17: "first:exit",
    20: "second",
    21: "second:exit",
    55: "by_row",
    98: "by_row:exit",
}


@pytest.mark.parametrize("files", [1, 20])
def test_a_row_that_fails_in_a_stage_is_one_dead_letter_that_names_it(tmp_path, files):
    """And costs no other row, wherever its batch has been."""
    made = failing(tmp_path, FAILS, files=files)
    _, report = a_run(
        tmp_path,
        [
            stage("first", one_to_one=True, batch_size=10),
            stage("second", one_to_one=True, batch_size=32),
            stage("by_row", mode="row"),
        ],
    )

    assert report.ok
    functions = [staged.first, staged.second, by_rows(staged.by_row)]
    assert rows_out(tmp_path / "out") == composed(made, *functions, but=FAILS)
    assert dead_letters(tmp_path) == {
        3: ("first", "ValueError"),
        17: ("first", "SystemExit"),
        20: ("second", "ValueError"),
        21: ("second", "SystemExit"),
        55: ("by_row", "ValueError"),
        98: ("by_row", "SystemExit"),
    }


def test_earlier_stages_are_not_called_again_for_a_row_that_a_later_one_fails(tmp_path):
    """Their answers may have cost money."""
    failing(tmp_path, {40: "second"})
    path = tmp_path / "calls"
    _, report = a_run(
        tmp_path,
        [
            stage("by_row", mode="row", fn_kwargs={"path": str(path)}),
            stage("second", batch_size=32),
        ],
    )

    assert report.ok
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [n for n in range(100) if n != 40]
    assert sorted(ids[0] for ids in staged.noted(path)) == list(range(100))


def test_what_fails_after_a_stage_that_drops_rows_is_blamed_on_the_right_row(tmp_path):
    """Which row of the source a row comes from is then not known: its batch is halved at the source."""
    made = failing(tmp_path, {40: "second", 62: "only_even", 77: "second"})
    _, report = a_run(tmp_path, ["only_even", "second"])

    assert report.ok
    expected = composed(made, staged.only_even, staged.second, but={40, 62})
    assert rows_out(tmp_path / "out") == expected
    assert dead_letters(tmp_path) == {40: ("second", "ValueError"), 62: ("only_even", "ValueError")}


def test_of_a_row_that_was_fanned_out_all_comes_out_or_nothing(tmp_path):
    """One of its three rows fails in the next stage: the row is a dead letter, once."""
    made = failing(tmp_path, {5: "fails_for_copy_1", 50: "fails_for_copy_1"})
    followers = [
        stage("second"),
        stage("only_even", batch_size=50),
        stage("second", one_to_one=True),
    ]
    for number, last in enumerate(followers):
        folder = tmp_path / str(number)
        failing(folder, {5: "fails_for_copy_1", 50: "fails_for_copy_1"})
        fails = stage("fails_for_copy_1", one_to_one=number == 2)
        _, report = a_run(folder, [stage("three_of_each", mode="row"), fails, last])

        assert report.ok
        function = [staged.second, staged.only_even, staged.second][number]
        fanned = [by_rows(staged.three_of_each), staged.fails_for_copy_1, function]
        assert rows_out(folder / "out") == composed(made, *fanned, but={5, 50})
        assert dead_letters(folder) == dict.fromkeys((5, 50), ("fails_for_copy_1", "ValueError"))


def test_a_stage_that_promises_one_row_for_each_is_held_to_it(tmp_path):
    """Rows of other shards would be given to the wrong one."""
    failing(tmp_path, {12: "too_few"})
    _, report = a_run(tmp_path, [stage("too_few", one_to_one=True), "second"])

    assert report.ok
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [n for n in range(100) if n != 12]
    assert dead_letters(tmp_path) == {12: ("too_few", "RowCountError")}


def test_what_a_failed_call_changed_in_its_rows_reaches_no_other_call(tmp_path):
    """A stage may change what it gets; the next try gets what the stage before gave."""
    made = failing(tmp_path, {7: "changes_its_rows"})
    _, report = a_run(tmp_path, [stage("first", one_to_one=True), "changes_its_rows"])

    assert report.ok
    expected = composed(made, staged.first, staged.changes_its_rows, but={7})
    assert rows_out(tmp_path / "out") == expected


def test_a_row_that_the_sink_refuses_costs_itself_alone(tmp_path):
    """No stage is called again to find it, and the last one is named."""
    made = failing(tmp_path, {8: "sink", 9: "sink", 60: "sink"})
    path = tmp_path / "calls"
    _, report = a_run(
        tmp_path,
        [
            stage("by_row", mode="row", fn_kwargs={"path": str(path)}),
            stage("unwritable", one_to_one=True),
        ],
    )

    assert report.ok
    kept = [row["id"] for row in made if row["id"] not in {8, 9, 60}]
    assert [row["id"] for row in rows_out(tmp_path / "out")] == kept
    assert {stage for stage, _ in dead_letters(tmp_path).values()} == {"unwritable"}
    assert len(staged.noted(path)) == 100


def test_a_stage_whose_memory_does_not_suffice_goes_on_with_smaller_batches(tmp_path):
    """Only that stage, and from then on; a row that takes it all is a dead letter."""
    failing(tmp_path, {70: "second:memory"}, count=200)
    path = tmp_path / "calls"
    _, report = a_run(
        tmp_path,
        [
            stage(
                "memory_for",
                batch_size=64,
                one_to_one=True,
                fn_kwargs={"most": 10, "path": str(path)},
            ),
            stage("second", batch_size=64, one_to_one=True),
        ],
    )

    assert report.ok
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [n for n in range(200) if n != 70]
    assert dead_letters(tmp_path) == {70: ("second", "MemoryError")}
    sizes = [size for [size] in staged.noted(path)]
    assert sum(size > 10 for size in sizes) < 12


@pytest.mark.parametrize("place", [0, 1, 2])
def test_code_that_fails_every_row_ends_the_run_after_a_handful_of_calls(tmp_path, place):
    """In whichever stage it is, and not after a dead letter for each row."""
    path = tmp_path / "calls"
    made = [{**row, "path": str(path)} for row in rows(0, 4000)]
    for number in range(4):
        write_jsonl(tmp_path / f"in/{number}.jsonl", made[number * 1000 : number * 1000 + 1000])
    stages = [stage("first", one_to_one=True), stage("by_row", mode="row"), stage("second")]
    stages[place] = stage("always_fails")
    _, report = a_run(tmp_path, stages, errors={"retry": {"max_attempts": 2}}, batch_size=100)

    assert not report.ok
    assert "broken code" in str(report.failures)
    assert len(staged.noted(path)) < 40


def test_retry_rows_makes_the_rows_that_a_stage_failed(tmp_path, monkeypatch):
    """After a fix they go through all stages, and a replay of all shards gives the same."""
    made = failing(tmp_path, {3: "first", 20: "second"}, count=60, files=3)
    spec, report = a_run(tmp_path, [stage("first", version="1"), stage("second", version="1")])
    assert report.rows_failed == 2

    monkeypatch.setattr(staged, "_fail", lambda *_: None)
    report = BatchRunner(spec).retry(rows=True)

    assert report.ok
    found = sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"])
    assert found == composed(made, staged.first, staged.second)
    deterministic = spec.capability.model_copy(update={"deterministic": True})
    checked = spec.model_copy(update={"capability": deterministic})
    assert verify(checked, checks=Checks(replay=1.0)).findings == ()


def test_each_worker_of_a_stage_has_an_instance_of_its_own(tmp_path):
    """A class is built once for each, and no two threads are in one instance."""
    failing(tmp_path, {}, count=400)
    a_run(tmp_path, [stage("Counts", batch_size=4, concurrency=3, name="counts")])

    threads = {}
    for row in rows_out(tmp_path / "out"):
        threads.setdefault(row["instance"], set()).add(row["thread"])
    assert all(len(of_instance) == 1 for of_instance in threads.values())


def test_rows_tried_alone_leave_a_gap_in_no_batch_and_in_no_order(tmp_path):
    """A stage that may look at its neighbours gets neighbours, also after its first call has failed."""
    made = failing(tmp_path, {1: "only_even"}, count=60)
    path = tmp_path / "calls"
    a_run(tmp_path, [stage("only_even", fn_kwargs={"path": str(path)})], batch_size=60)

    assert rows_out(tmp_path / "out") == composed(made, staged.only_even, but={1})
    assert all(b == a + 1 for ids in staged.noted(path) for a, b in pairwise(ids))


def test_objects_of_a_notebook_can_be_stages(tmp_path):
    """A list of functions and classes, as they were just typed; a run goes on only with the same ones."""
    made = failing(tmp_path, {}, count=50)
    factor = 3

    def times(batch):
        return [{**row, "product": row["id"] * factor} for row in batch]

    stages = [times, staged.second, staged.Counts]
    report = BatchRunner(a_spec(tmp_path, capability=None), capability=stages).run()

    assert report.ok
    found = [
        {k: row[k] for k in ("id", "text", "product", "second")}
        for row in rows_out(tmp_path / "out")
    ]
    assert found == composed(made, times, staged.second)
    factor = 4
    with pytest.raises(SpecChangedError, match="factor"):
        BatchRunner(a_spec(tmp_path, capability=None), capability=stages).run()
    with pytest.raises(InvalidSpecError, match="2 stages here, and 3 objects"):
        BatchRunner(
            a_spec(tmp_path, capability=["staged:first", "staged:second"]), capability=stages
        )


@pytest.mark.parametrize("size", [1, 16])
def test_a_row_has_its_attempts_in_the_stage_that_failed_it(tmp_path, size):
    """A service that is briefly unavailable costs no row, and no call of the stages before."""
    staged._calls.clear()
    failing(tmp_path, {30: "stumbles", 70: "stumbles"})
    path = tmp_path / "calls"
    _, report = a_run(
        tmp_path,
        [
            stage("by_row", mode="row", fn_kwargs={"path": str(path)}),
            stage("stumbles", batch_size=size),
        ],
        errors={"retry": {"max_attempts": 3}},
    )

    assert report.ok
    assert report.rows_failed == 0
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(100))
    assert len(staged.noted(path)) == 100


def test_a_call_of_rows_of_which_some_are_not_known_blames_no_neighbour(tmp_path):
    """A file of one row knows whose its rows are; of the others only the file is known."""
    fails = dict.fromkeys(range(5, 60, 7), "second")
    made = failing(tmp_path, fails, count=60, files=40)
    _, report = a_run(tmp_path, ["first", stage("second", one_to_one=True)])

    assert report.ok
    assert set(dead_letters(tmp_path)) == set(fails)
    assert rows_out(tmp_path / "out") == composed(made, staged.first, staged.second, but=fails)


ROW, BATCH = {"mode": "row"}, {"one_to_one": True}


@pytest.mark.parametrize(
    ("how", "bad", "files"),
    [(ROW, [0, 1, 2], 1), (ROW, range(100), 50), (BATCH, range(100), 1), (BATCH, [0, 1, 2], 50)],
)
def test_no_row_has_more_attempts_than_the_spec_gives_it(tmp_path, how, bad, files):
    """Also while it is not known whether its code is broken; and its dead letter has the error of the last one."""
    staged._calls.clear()
    failing(tmp_path, dict.fromkeys(bad, "numbers_its_attempts"), files=files)
    fails = stage("numbers_its_attempts", **how)
    errors = {"max_row_errors": 1.0, "retry": {"max_attempts": 3, "backoff": 0.001}}
    a_run(tmp_path, [stage("first", one_to_one=True), fails], errors=errors)

    attempts = {row: staged._calls["alone", row] for row in bad}
    letters = said(tmp_path)
    assert max(attempts.values()) == 3
    if len(bad) < 100:  # else the run may end before the last one
        assert set(attempts.values()) == {3}
        assert letters == dict.fromkeys(bad, "attempt 3")


ANY_STAGE = {
    "first": ({}, {"one_to_one": True}),
    "second": ({}, {"one_to_one": True}),
    "by_row": ({"mode": "row"},),
    "three_of_each": ({"mode": "row"},),
    "only_even": ({},),
}


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 150))]
)
def test_whatever_fails_wherever_exactly_these_rows_are_set_aside(tmp_path, seed):
    """Also where a call had rows of which it is known where they come from, and others."""
    rng = random.Random(seed)
    names = rng.sample(sorted(ANY_STAGE), 3)
    stages = [
        stage(name, batch_size=rng.choice([1, 3, 16, 64]), **rng.choice(ANY_STAGE[name]))
        for name in names
    ]
    share = rng.choice([0.03, 0.3, 0.7])
    how = ["", "", ":exit"]
    fails = {n: rng.choice(names) + rng.choice(how) for n in range(60) if rng.random() < share}
    made = failing(tmp_path, fails, count=60, files=rng.choice([1, 7, 30, 60]))
    errors = {
        "max_row_errors": 1.0,
        "retry": {"max_attempts": rng.choice([1, 2]), "backoff": 0.001},
    }
    _, report = a_run(tmp_path, stages, errors=errors)

    expected, dead = [], {}
    for row in made:
        some = [row]
        for name in names:
            function = getattr(staged, name)
            try:
                some = by_rows(function)(some) if "mode" in ANY_STAGE[name][0] else function(some)
            except (ValueError, SystemExit):
                dead[row["id"]] = name
                some = []
                break
        expected += some
    assert report.ok
    assert {row: name for row, (name, _) in dead_letters(tmp_path).items()} == dead
    assert rows_out(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "how", [{"target": "staged:pays", "mode": "row"}, stage("all_pay", one_to_one=True)]
)
def test_attempts_that_failed_were_paid_for(tmp_path, how):
    """What a row that is set aside has cost is in the record of its shard, as the errors say it."""
    failing(tmp_path, {3: "pays", 7: "pays"}, count=20)
    errors = {"max_row_errors": 5, "retry": {"max_attempts": 2}}

    _, report = a_run(
        tmp_path, [stage("second", one_to_one=True), how], errors=errors, batch_size=1
    )

    assert (report.rows_out, report.rows_failed) == (18, 2)
    assert report.usage == report.spent == {"tokens": 22}
