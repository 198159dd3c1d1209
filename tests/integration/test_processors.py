"""Ray's own processors as stages: every row exactly once around them, values as they were."""

from __future__ import annotations

import json

import pytest

from asking import POISON, URL, service
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows_out, write_jsonl
from command import a_spec_file, batchrunner
from killing import killed_with_parts

ROWS = [
    # What Ray's blocks would change: a column of integers that need 70 bits, or are missing; lists that are
    # ragged; text that looks like a date.
    {"id": n, "text": f"2024-01-{n:05d}", "big": 2**70 + n, "some": [n] * (n % 3), "gap": None}
    if n % 3
    else {"id": n, "text": "é", "big": n, "some": [], "gap": n}
    for n in range(300)
]
CPUS = {"num_cpus": 0.2}


def made(row):
    return {**row, "said": row["text"] * 2}


def asking(folder, processor, **fields):
    for first in range(0, len(ROWS), 60):
        write_jsonl(folder / f"in/in-{first:04d}.jsonl", ROWS[first : first + 60])
    return {
        "capability": [{"processor": f"asking:{processor}", "name": "ask", **CPUS}],
        "execution": {"engine": "ray"},
        **fields,
    }


@pytest.mark.usefixtures("local_ray")
def test_a_request_that_fails_costs_its_row_and_no_value_changes(tmp_path, monkeypatch):
    """Ray Data would end the run. Its blocks would make floats of large integers, and dates of text."""
    with service() as (server, url):
        monkeypatch.setenv(URL, url)
        errors = {"max_row_errors": 1, "retry": {"max_attempts": 1}}

        report = BatchRunner(a_spec(tmp_path, **asking(tmp_path, "over_http", errors=errors))).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 299, 1)
    assert rows_out(tmp_path / "out") == [made(row) for row in ROWS if row["id"] != POISON]
    [dead_letter] = _dead_letters(tmp_path)
    assert dead_letter["stage"] == "ask.HttpRequest"
    assert json.loads(dead_letter["raw"]) == ROWS[POISON]
    assert set(server.asked) == set(range(300))
    # The batch of the poison row was halved: 16 + 8 + 4 + 2 + 1 + what stood beside it.
    assert len(server.asked) <= 300 + 2 * 32


@pytest.mark.usefixtures("local_ray")
def test_a_row_that_the_engine_went_on_without_is_a_dead_letter(tmp_path):
    """Its neighbours keep their answers; of a row that failed, the output would have an error as text."""
    spec = asking(tmp_path, "that_goes_on", errors={"max_row_errors": 1})

    report = BatchRunner(a_spec(tmp_path, **spec)).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 299, 1)
    kept = [{"id": row["id"], "text": row["text"], "said": row["text"] * 2} for row in ROWS]
    assert rows_out(tmp_path / "out") == [row for row in kept if row["id"] != POISON]
    [dead_letter] = _dead_letters(tmp_path)
    assert dead_letter["message"] == "ValueError: too long"
    assert json.loads(dead_letter["raw"]) == ROWS[POISON]


def test_a_driver_that_is_killed_asks_for_no_committed_row_again(tmp_path, ray_address):
    """A run of requests that cost money is killed, and goes on."""
    with service() as (server, url):
        errors = {"max_row_errors": 1, "retry": {"max_attempts": 1}}
        source = {"uri": "in", "shard": {"rows": 20}}
        fields = asking(tmp_path, "over_http", errors=errors, source=source)
        a_spec_file(tmp_path, **fields, ray={"address": ray_address})

        killed_with_parts(tmp_path, **{URL: url})
        before = server.asked.copy()
        committed = {row["id"] for row in rows_out(tmp_path / "out")}
        again = batchrunner("run", "spec.yaml", cwd=tmp_path, **{URL: url})

    assert again.returncode == 0, again.stderr
    assert committed
    assert rows_out(tmp_path / "out") == [made(row) for row in ROWS if row["id"] != POISON]
    assert not committed & set(server.asked[len(before) :])


def _dead_letters(folder):
    return list(read_dead_letters(Checkpoint(open_storage(str(folder / "out/_checkpoint")))))
