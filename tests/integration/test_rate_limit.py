"""The rate limit, by the count of a server; what answers used, in the records; and the end of a run for its cost."""

import json
import os
import signal
import threading
import time
import uuid

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import PlanFacts
from batchrunner.driver.report import STOP_CODES
from batchrunner.execute.ray_rate_limit import gate_of, rate_budget
from batchrunner.verify import Checks, verify
from batchrunner.worker.work import Work
from builders import a_source, a_spec, rows_out, write_jsonl
from command import a_spec_file, start
from counting_server import counting_server, most_in_a_window, usage
from patience import PATIENCE

LIMIT = 60
LATE = 0.05
"""A twentieth of a second more on its way than others: the promise holds for what is no later."""
PRICES = {"prompt_tokens": "1/1k", "completion_tokens": "2/1k"}


def capability(server, name="ask"):
    return {"target": f"asking_capability:{name}", "mode": "row", "fn_kwargs": {"url": server.url}}


def cost_of(rows):
    used = [usage(row) for row in rows]
    return sum(one["prompt_tokens"] + 2 * one["completion_tokens"] for one in used) / 1000


def sentinels(folder):
    return [json.loads(path.read_text()) for path in folder.glob("out/_checkpoint/sentinels/*")]


def answers(count):
    return [{"id": row, "usage": usage(row)} for row in range(count)]


@pytest.mark.parametrize("name", ["ask", "ask_in_turn"])
def test_a_server_never_counts_more_than_the_limit(tmp_path, name):
    """Calls wait, each refusal makes all wait, and every row has its answer and its usage once."""
    a_source(tmp_path / "in", shards=3, rows_per_shard=40)
    with counting_server(refuses=lambda row: row % 40 == 5) as server:
        spec = a_spec(
            tmp_path,
            capability=capability(server, name),
            execution={
                "engine": "local",
                "batch_size": 16,
                "prices": PRICES,
                "rate_limit": {"requests": f"{LIMIT}/s", "in_flight": 6},
            },
        )
        report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"]) == answers(120)
    assert len(server.arrivals) == 120 + len(server.refused) == 123
    assert most_in_a_window(server.on_time(LATE), 1.0) <= LIMIT
    assert server.most_at_once <= 6
    assert report.usage["prompt_tokens"] == sum(usage(n)["prompt_tokens"] for n in range(120))
    assert report.usage["cost"] == pytest.approx(cost_of(range(120)))
    assert dict(report.spent) == pytest.approx(dict(report.usage))
    kept = [sum(one["usage"][name] for one in sentinels(tmp_path)) for name in report.usage]
    assert kept == pytest.approx([*report.usage.values()])


@pytest.mark.parametrize("name", ["SlowToLoad", "SlowToLoadInTurn"])
def test_calls_wait_for_a_process_of_their_own_before_they_are_admitted(tmp_path, name):
    """Those that were admitted while it starts, or while another one has its turn, would go out together."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=75)
    with counting_server(seconds=0.0) as server:
        asks = capability(server, name) | {"fn_constructor_kwargs": {"seconds": 0.5}}
        execution = {
            "engine": "local",
            "batch_size": 90,
            "max_concurrency": 64,
            "rate_limit": f"{LIMIT}/s",
        }
        errors = {"batch_timeout": PATIENCE}
        spec = a_spec(tmp_path, capability=asks, execution=execution, errors=errors)
        report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert {one.pid for one in server.arrivals}.isdisjoint({os.getpid()})
    assert most_in_a_window([one.at for one in server.arrivals], 1.0) <= LIMIT


@pytest.mark.long
def test_a_shard_that_goes_on_in_a_process_of_its_own_keeps_to_the_limit(tmp_path):
    """Killed twice with the same shard in flight, as on a bad day."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=90)
    with counting_server() as server:
        a_spec_file(
            tmp_path,
            capability=capability(server, "SlowToLoad")
            | {"fn_constructor_kwargs": {"seconds": 0.5}},
            execution={
                "engine": "local",
                "batch_size": 90,
                "max_concurrency": 64,
                "rate_limit": f"{LIMIT}/s",
            },
        )
        for _ in range(2):
            asked = len(server.arrivals)
            with start("run", "spec.yaml", cwd=tmp_path) as process:
                wait_for(lambda: len(server.arrivals) > asked)  # noqa: B023 - waited for here
                process.kill()
                process.communicate()
        with start("run", "spec.yaml", cwd=tmp_path) as process:
            process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert server.arrivals[-1].pid != process.pid
    assert most_in_a_window([one.at for one in server.arrivals], 1.0) <= LIMIT
    assert sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"]) == answers(90)


def test_calls_with_batches_are_limited_too(tmp_path):
    """A call is a call: of an API that takes a list, it is one request."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=40)
    with counting_server(seconds=0.0) as server:
        spec = a_spec(
            tmp_path,
            capability={**capability(server, "ask_all"), "mode": "batch"},
            execution={"engine": "local", "batch_size": 4, "rate_limit": {"requests": "5/s"}},
        )
        report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert report.usage["prompt_tokens"] == sum(usage(n)["prompt_tokens"] for n in range(40))
    assert most_in_a_window([one.at for one in server.arrivals if one.id % 4 == 0], 1.0) <= 5
    assert report.seconds >= 9 / 5  # ten calls


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_stage_has_a_limit_of_its_own(tmp_path, engine, request):
    """The stage that calls an API is limited, and none of those around it."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in", shards=2, rows_per_shard=45)
    with counting_server() as server:
        asks = {**capability(server), "rate_limit": {"requests": f"{LIMIT}/s", "in_flight": 5}}
        spec = a_spec(
            tmp_path,
            capability=["capabilities:echo", asks],
            execution={"engine": engine, "batch_size": 16, "num_cpus": 0.5, "prices": PRICES},
        )
        report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"]) == answers(90)
    assert most_in_a_window(server.on_time(LATE), 1.0) <= LIMIT
    assert server.most_at_once <= 5
    assert report.usage["cost"] == pytest.approx(cost_of(range(90)))


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_each_stage_says_what_it_used_and_none_counts_twice(tmp_path, engine, request):
    """Whatever later stages drop or pass on, and of a row that fails in one of them, too."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    (tmp_path / "in").mkdir()
    for first in (0, 20):
        brought = [{"id": n, "other": {"prompt_tokens": 5}} for n in range(first, first + 20)]
        write_jsonl(tmp_path / f"in/{first}.jsonl", brought)
    stage = {"mode": "batch", "one_to_one": True}
    spec = a_spec(
        tmp_path,
        capability=[
            {"target": "asking_capability:uses", "mode": "row"},
            {**stage, "target": "asking_capability:passes_on"},
            {"target": "asking_capability:uses_elsewhere", "usage": "other", **stage},
            {"target": "asking_capability:ids_but_7", **stage},
        ],
        execution={"engine": engine, "batch_size": 8, "num_cpus": 0.25, "prices": PRICES},
        errors={"max_row_errors": 1},
    )
    report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert sorted(row["id"] for row in rows_out(tmp_path / "out")) == [
        n for n in range(40) if n != 7
    ]
    cost = cost_of(range(40)) + 40 * 1000 / 1000
    assert report.usage["cost"] == report.spent["cost"] == pytest.approx(cost)
    of_parts = {one["part"]: one["usage"]["cost"] for one in sentinels(tmp_path)}
    halves = [cost_of(range(first, first + 20)) + 20 for first in (0, 20)]
    assert sorted(of_parts.values()) == pytest.approx(sorted(halves))


@pytest.mark.parametrize("mode", ["row", "batch"])
@pytest.mark.parametrize("content", [{"n": "a word"}, {"n": [1, "a word"]}], ids=["later", "never"])
def test_a_row_that_the_sink_refuses_was_paid_for(tmp_path, mode, content):
    """Its type is not that of earlier rows, or that of no column: it fails, and its answer has cost."""
    used = [{"id": n, "n": n, "usage": {"prompt_tokens": 10}} for n in range(8)]
    used[3] |= content
    write_jsonl(tmp_path / "in/a.jsonl", [{"answer": one} for one in used])
    target = {"row": "as_answered", "batch": "all_as_answered"}[mode]
    spec = a_spec(
        tmp_path,
        capability={"target": f"asking_capability:{target}", "mode": mode},
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        execution={"engine": "local", "batch_size": 1},
        errors={"max_row_errors": 1, "retry": {"max_attempts": 2}},
    )

    report = BatchRunner(spec).run()

    assert (report.rows_out, report.rows_failed) == (7, 1)
    assert report.usage == {"prompt_tokens": 80}
    assert [one["usage"] for one in sentinels(tmp_path)] == [{"prompt_tokens": 80}]


def test_usage_that_a_later_stage_drops_ends_the_run_at_its_cost(tmp_path):
    """It was read from what the last stage returns: the limit stopped nothing."""
    a_source(tmp_path / "in", shards=6, rows_per_shard=20)
    uses = {"target": "asking_capability:uses", "mode": "row", "rate_limit": "40/s"}
    stages = [uses, "asking_capability:ids"]
    execution = {"engine": "local", "batch_size": 4, "prices": PRICES, "max_cost": 0.3}
    report = BatchRunner(a_spec(tmp_path, capability=stages, execution=execution)).run()

    assert report.exit_code == STOP_CODES["max_cost"] == 75
    assert report.usage["cost"] >= 0.3
    assert report.usage["cost"] == pytest.approx(
        cost_of([r["id"] for r in rows_out(tmp_path / "out")])
    )


def test_a_limit_on_the_cost_that_cannot_work_is_not_run_past(tmp_path):
    """No answer says what it costs: the run would go on for whatever it is."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=2000)
    execution = {"engine": "local", "batch_size": 10, "max_concurrency": 4, "max_cost": 1.0}
    execution["rate_limit"] = "200/s"
    asks = {"target": "asking_capability:uses", "mode": "row"}
    report = BatchRunner(a_spec(tmp_path, capability=asks, execution=execution)).run()

    assert report.exit_code == STOP_CODES["no cost reported"] == 1
    assert 100 <= report.rows_out < 500
    assert "stopped (no cost reported): " in str(report)
    assert (
        "next: execution.max_cost cannot stop a run whose answers do not say what they cost. They report "
        "prompt_tokens, completion_tokens: give execution.prices for that"
    ) in str(report)
    execution |= {"prices": PRICES, "max_cost": 1000.0, "rate_limit": None}
    report = BatchRunner(a_spec(tmp_path, capability=asks, execution=execution)).run()
    assert (report.exit_code, report.rows_out) == (0, 2000)


@pytest.mark.ray
def test_workers_share_the_limit_and_one_that_is_killed_gives_its_places_back(tmp_path, local_ray):
    """Three workers on Ray, of which one dies with calls under way: with its places, the run would stand still."""
    a_source(tmp_path / "in", shards=9, rows_per_shard=25)
    killed = []
    with counting_server() as server:

        def kill_one():
            deadline = time.monotonic() + PATIENCE
            while (
                len(pids := {one.pid for one in server.arrivals}) < 2 or len(server.answered) < 40
            ):
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)
            killed.append(pids.pop())
            os.kill(killed[0], signal.SIGKILL)

        threading.Thread(target=kill_one, daemon=True).start()
        spec = a_spec(
            tmp_path,
            capability=capability(server),
            execution={
                "engine": "ray",
                "num_cpus": 0.5,
                "concurrency": 3,
                "batch_size": 8,
                "prices": PRICES,
                "rate_limit": {"requests": f"{LIMIT}/s", "in_flight": 4},
            },
        )
        report = BatchRunner(spec).run(progress="off")

    assert report.ok
    assert len(killed) == 1
    assert sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"]) == answers(225)
    assert most_in_a_window(server.on_time(LATE), 1.0) <= LIMIT
    assert report.usage["cost"] == pytest.approx(cost_of(range(225)))
    # What the dead worker was paid for is known as far as it had reported it.
    assert report.usage["cost"] <= report.spent["cost"] * (1 + 1e-9)
    assert report.spent["cost"] <= cost_of(server.answered) * (1 + 1e-9)


@pytest.mark.ray
def test_workers_of_a_dead_driver_share_the_budget_of_the_next(tmp_path, local_ray):
    """They call for some seconds more. Each with a budget of its own, the run would call twice as fast."""
    spec = a_spec(tmp_path, execution={"rate_limit": {"requests": "10/h", "in_flight": 1}})
    facts = PlanFacts(width=5, format="jsonl", compression="", unit="bytes", count=1)
    work = Work(spec=spec, run_uid=uuid.uuid4().hex, session="s", facts=facts, weight=1)
    first = rate_budget(work)
    first.__enter__()
    of_old = gate_of(work)
    try:
        name = f"rate-limit-{work.run_uid}"
        old = local_ray.get_actor(name, namespace="batchrunner")
        wait_for(lambda: of_old.enter() > 0 and seen_by(local_ray, old))
        with rate_budget(work):
            new = local_ray.get_actor(name, namespace="batchrunner")
            assert new._actor_id != old._actor_id
            wait_for(lambda: of_old.enter() > 0 and seen_by(local_ray, new))
        assert of_old.enter() > 0  # no budget, no call
    finally:
        of_old.close()
        first.__exit__(None, None, None)


def seen_by(ray, actor):
    """Whether a worker has reported to the budget."""
    try:
        return ray.get(actor.holders.remote()) > 0
    except ray.exceptions.RayActorError:
        return False


def test_a_replay_keeps_to_the_limit_too(tmp_path):
    """`verify --replay` calls the same service again, in one process."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=45)
    with counting_server(seconds=0.0) as server:
        asks = {**capability(server), "deterministic": True}
        execution = {"engine": "local", "batch_size": 16, "rate_limit": "40/s"}
        spec = a_spec(tmp_path, capability=asks, execution=execution)
        assert BatchRunner(spec).run(progress="off").ok
        server.arrivals.clear()
        found = verify(spec, checks=Checks(replay=1))

    assert found.findings == ()
    assert sorted(one.id for one in server.arrivals) == list(range(45))
    assert most_in_a_window([one.at for one in server.arrivals], 1.0) <= 40


def test_a_run_stops_at_its_cost_and_goes_on_with_more(tmp_path):
    """What was paid for is committed, also of a shard that is not done; no row is paid for twice."""
    a_source(tmp_path / "in", shards=2, rows_per_shard=60)
    codes, costs = [], []
    with counting_server() as server:

        def run(max_cost):
            spec = a_spec(
                tmp_path,
                capability=capability(server),
                execution={
                    "engine": "local",
                    "batch_size": 2,
                    "max_concurrency": 2,
                    "prices": PRICES,
                    "max_cost": max_cost,
                    "rate_limit": {"requests": "100/s"},
                },
            )
            report = BatchRunner(spec).run(progress="off")
            codes.append(report.exit_code)
            costs.append(report.spent["cost"])
            return report

        first = run(0.2)
        asked = len(server.arrivals)
        again = run(0.2)
        assert len(server.arrivals) == asked  # not one call more
        run(0.5)
        last = run(100)

    assert codes == [STOP_CODES["max_cost"]] * 3 + [0]
    assert costs[0] == costs[1] >= 0.2
    assert "raise execution.max_cost, which is 0.2: the rest would cost about" in str(first)
    assert again.shards_new == 0
    assert first.cost_left == pytest.approx(last.usage["cost"] - costs[0], rel=0.3)
    assert sorted(rows_out(tmp_path / "out"), key=lambda row: row["id"]) == answers(120)
    assert sorted(server.answered) == [*range(120)]
    assert (
        last.spent["cost"]
        == pytest.approx(last.usage["cost"])
        == pytest.approx(cost_of(range(120)))
    )


def test_what_a_killed_session_has_spent_counts(tmp_path):
    """A limit that forgets it at each kill is none. Killed with answers that are not committed."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=400)
    with counting_server() as server:
        execution = {
            "engine": "local",
            "batch_size": 4,
            "prices": PRICES,
            "max_cost": 1.0,
            "rate_limit": {"requests": "10/s"},
        }
        a_spec_file(tmp_path, capability=capability(server), execution=execution)
        with start("run", "spec.yaml", cwd=tmp_path) as process:
            logs = tmp_path / "out/_checkpoint/sessions"
            wait_for(lambda: any(has_spent(path) for path in logs.glob("*.jsonl")))
            process.kill()
            process.communicate()
        with start("run", "spec.yaml", "-o", "json", cwd=tmp_path) as process:
            stdout, _ = process.communicate(timeout=PATIENCE)

    report = json.loads(stdout)
    assert process.returncode == report["exit_code"] == 75
    assert report["spent"]["cost"] > report["usage"]["cost"] * (1 + 1e-9)
    assert 1.0 <= report["spent"]["cost"] <= cost_of(server.answered) * (1 + 1e-9)


def has_spent(path):
    return any(json.loads(line).get("spent") for line in path.read_bytes().splitlines())


def wait_for(is_true):
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
