"""A job over an API that costs money, on a bad day: refusals, failures, resets, hangs, and kills of the run."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, read_part, rows, rows_out, write_jsonl
from command import a_spec_file, batchrunner, start
from flaky_api import FAULTS, FlakyApi
from patience import PATIENCE


def an_api_job(folder, api, *, count, limit, **execution):
    write_jsonl(folder / "in/a.jsonl", rows(0, count))
    retry = {"max_attempts": 12, "backoff": {"initial": 0.1, "max": 1}, "max_wait": "10m"}
    a_spec_file(
        folder,
        capability={
            "target": "api_capabilities:Squares",
            "mode": "row",
            "fn_constructor_kwargs": {"url": api.url},
        },
        execution={
            "engine": "local",
            "batch_size": 32,
            "max_concurrency": 16,
            "journal_answers": True,
            "rate_limit": {"requests": f"{limit}/s"},
            **execution,
        },
        errors={"max_row_errors": 10, "retry": retry, "row_timeout": 5},
    )


def run_until(folder, happened):
    """Run, and kill the process once something *happened*."""
    deadline = time.monotonic() + PATIENCE
    with start("run", "spec.yaml", cwd=folder) as process:
        while not happened():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()


def journaled(folder):
    return list((folder / "out/_checkpoint/answers").glob("*.jsonl"))


def answers_in(files):
    """The ids of rows that are journaled, read without our code."""
    lines = [line for file in files for line in file.read_text().splitlines()[1:]]
    return [row["id"] for line in lines for row in json.loads(line)["answer"]]


@pytest.mark.parametrize(
    ("count", "again"),
    [
        pytest.param(300, 1.15, marks=pytest.mark.long),
        pytest.param(3000, 1.02, marks=pytest.mark.soak),
    ],
)
def test_a_bad_day_and_two_kills_cost_two_poisoned_rows_and_hardly_a_request(
    tmp_path, count, again
):
    """3 % each of 429, 500, resets and hangs; the API answers each row about once, and is asked no faster."""
    poison, limit = (count // 7, count // 3), 60
    api = FlakyApi(share=0.03, poison=poison, most=limit, seed=count, retry_after=0.2)
    with api:
        an_api_job(tmp_path, api, count=count, limit=limit)
        for share in (1 / 3, 2 / 3):
            run_until(tmp_path, lambda share=share: api.verdicts["answered"] >= share * count)
            assert journaled(tmp_path)
        done = batchrunner("run", "spec.yaml", "-o", "json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    good = [n for n in range(count) if n not in poison]
    assert rows_out(tmp_path / "out") == [{"id": n, "square": n * n, "by": "the API"} for n in good]
    checkpoint = Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))
    letters = list(read_dead_letters(checkpoint))
    assert sorted(json.loads(one["raw"])["id"] for one in letters) == sorted(poison)
    assert {one["error"] for one in letters} == {"ClientResponseError"}
    assert all(api.verdicts[fault] for fault in FAULTS), api.verdicts
    assert api.answered.total() <= again * count, api.verdicts
    assert api.passed == 0
    assert not journaled(tmp_path)


def test_what_is_journaled_is_used_by_the_next_session_and_removed_with_its_shard(tmp_path):
    """Each row that an object of the journal has is answered from it, to the letter."""
    with FlakyApi() as api:
        an_api_job(tmp_path, api, count=120, limit=1000, max_concurrency=4)
        run_until(tmp_path, lambda: journaled(tmp_path) and api.verdicts["answered"] >= 40)
        kept = answers_in(journaled(tmp_path))
        status = json.loads(batchrunner("status", "spec.yaml", "-o", "json", cwd=tmp_path).stdout)
        planned = batchrunner("plan", "spec.yaml", cwd=tmp_path)
        api.asked.clear()
        done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert kept
    assert status["answers_journaled"] == len(set(kept))
    assert f"the journal has answers for {len(set(kept))} rows of these\n" in planned.stderr
    assert not set(kept) & set(api.asked)
    [part] = (tmp_path / "out").glob("part-*")
    assert read_part(part) == [{"id": n, "square": n * n, "by": "the API"} for n in range(120)]
    assert not journaled(tmp_path)


def test_a_run_that_starts_over_leaves_no_journal_of_the_one_before(tmp_path):
    """Its answers count for no later run, and may be large."""
    with FlakyApi() as api:
        an_api_job(tmp_path, api, count=90, limit=30, max_concurrency=4)
        run_until(tmp_path, lambda: journaled(tmp_path))
        done = batchrunner("run", "spec.yaml", "--fresh", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(90))
    assert not [*(tmp_path / "out").rglob("answers/*")]


def test_a_stop_ends_a_wait_and_makes_no_dead_letter_of_its_row(tmp_path):
    """The service said "again in ten minutes"; the grace period is for work, and the same line goes on."""
    with FlakyApi(most=0, retry_after=600) as api:
        an_api_job(tmp_path, api, count=40, limit=1000, max_concurrency=4)
        with start("run", "spec.yaml", cwd=tmp_path) as process:
            deadline = time.monotonic() + PATIENCE
            while api.passed < 4:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=PATIENCE)
        api.most = None
        done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert process.returncode == 143, stderr
    assert "held the interpreter" not in stderr
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(40))
    assert not list((tmp_path / "out/_checkpoint/errors").glob("*"))


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_on_ray_the_next_worker_has_the_answers_of_the_one_that_died(tmp_path):
    """Within a session, too: Ray starts another one for the shards of the first."""
    content = [{**row, "how": "exit once"} if row["id"] == 25 else row for row in rows(0, 40)]
    write_jsonl(tmp_path / "in/a.jsonl", content)
    kwargs = {"path": f"{tmp_path}/calls"}
    spec = a_spec(
        tmp_path,
        capability={"target": "api_capabilities:dies", "mode": "row", "fn_kwargs": kwargs},
        execution={"engine": "ray", "max_concurrency": 4, "journal_answers": True},
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 40, 0)
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(40))
    asked = Counter((tmp_path / "calls").read_text().split())
    assert asked["25"] == 2
    assert asked.total() <= 40 + 4
    assert not journaled(tmp_path)
