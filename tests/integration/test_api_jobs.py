"""A job over an API that costs money, on a bad day: refusals, failures, resets, hangs, and kills of the run."""

from __future__ import annotations

import json
import time

import pytest

from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import read_part, rows, rows_out, write_jsonl
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
    with FlakyApi(share=0.03, poison=poison, most=limit, seed=count) as api:
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
        api.asked.clear()
        done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert kept
    assert not set(kept) & set(api.asked)
    [part] = (tmp_path / "out").glob("part-*")
    assert read_part(part) == [{"id": n, "square": n * n, "by": "the API"} for n in range(120)]
    assert not journaled(tmp_path)
