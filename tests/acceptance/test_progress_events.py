"""`--progress json`: a program can parse the whole of stderr, however the session ends."""

from __future__ import annotations

import json
import signal

import pytest

from builders import a_source
from command import a_spec_file, batchrunner, start
from patience import PATIENCE
from progress_events import events_of, of_kind


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_line_of_stderr_is_an_event(tmp_path, engine):
    """One line that is not JSON breaks the program that reads them."""
    a_source(tmp_path / "in", shards=4, rows_per_shard=15)
    (tmp_path / "go").touch()
    target = {"target": "capabilities:prints_from_threads", "fn_kwargs": {"path": f"{tmp_path}/go"}}
    a_spec_file(tmp_path, capability=target, execution={"engine": engine, "batch_size": 1})

    done = batchrunner("-v", "run", "spec.yaml", "--progress", "json", "-o", "json", cwd=tmp_path)

    events = events_of(done.stderr)
    (report,) = of_kind(events, "report")
    assert report["report"] == json.loads(done.stdout)
    assert report["report"]["ok"]
    assert {event["shard"] for event in of_kind(events, "shard")} == {0, 1, 2, 3}
    last = of_kind(events, "progress")[-1]
    assert (last["committed"], last["rows_in"], last["rows_out"]) == (4, 60, 60)
    phases = [event["phase"] for event in of_kind(events, "phase")]
    assert phases[0] == "surveying"
    assert phases[-1] == "finishing"
    assert any("plan_made shards=4" in event["message"] for event in of_kind(events, "log"))
    if engine == "local":
        printed = {event["text"] for event in of_kind(events, "output")}
        assert {f"printed {n} by {who} to its end" for n in range(60) for who in "abc"} <= printed


def test_an_error_is_an_event(tmp_path):
    """What a program most needs to read is why there is no report."""
    a_spec_file(tmp_path)
    done = batchrunner("run", "spec.yaml", "--progress", "json", "-v", cwd=tmp_path)

    *_, error = events_of(done.stderr)
    assert error["event"] == "error"
    assert error["exit_code"] == done.returncode == 3
    assert "Traceback" in error["traceback"]
    assert f"{tmp_path}/in" in error["message"]


def test_a_session_that_is_ended_by_force_says_so_in_json(tmp_path):
    """A call that hangs is when a program has to know what to do next."""
    a_source(tmp_path / "in", shards=2)
    target = {"target": "capabilities:logs_and_hangs", "fn_kwargs": {"path": f"{tmp_path}/never"}}
    execution = {"engine": "local", "grace_period": 5}
    a_spec_file(tmp_path, capability=target, execution=execution)

    with start("run", "spec.yaml", "--progress", "json", cwd=tmp_path) as process:
        first = [process.stderr.readline()]
        while "a long warning" not in first[-1]:
            first.append(process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=PATIENCE)[1]

    *_, last = events_of("".join(first) + rest)
    assert process.returncode == 128 + signal.SIGTERM
    assert last["event"] in ("report", "error")
    assert "next: batchrunner run spec.yaml" in last.get("text", last.get("message"))
