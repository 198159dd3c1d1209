"""Metrics of a run on Ray's Prometheus endpoint, as Prometheus would scrape them."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
import urllib.request
from contextlib import contextmanager

import pytest

from batchrunner.views.metrics import METRICS, RowRate
from builders import rows, write_jsonl
from command import ENVIRONMENT
from patience import PATIENCE

_SAMPLE = re.compile(r"^ray_(batchrunner_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

RUNS = textwrap.dedent("""\
    # A Ray with an endpoint of its own, on which a run ends before this process does.
    import json, logging, socket, sys, time, urllib.request
    from contextlib import suppress
    from pathlib import Path

    import ray

    from batchrunner import BatchRunner
    from builders import a_spec
    from patience import PATIENCE

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR, object_store_memory=100 * 2**20, _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 500},
    )
    url, end = f"http://127.0.0.1:{port}/metrics", time.monotonic() + PATIENCE
    while time.monotonic() < end:  # it comes up some seconds after Ray, and keeps values for 20 s
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=PATIENCE).close()
            break
        time.sleep(0.1)
    print(json.dumps({"port": port}), flush=True)
    spec = a_spec(
        Path(sys.argv[1]), name="nightly", execution={"engine": "ray", "batch_size": 2},
        capability={"target": "capabilities:echo_unless_13", "mode": "row",
                    "fn_kwargs": {"gate": sys.argv[1] + "/gate"}},
        source={"uri": sys.argv[1] + "/in", "shard": {"files": 1}},
        errors={"max_row_errors": 5, "retry": {"max_attempts": 1}},
    )
    report = BatchRunner(spec).run()
    print(json.dumps(report.to_dict()), flush=True)
    sys.stdin.read()
""")


def scraped(port):
    """Return the samples of batchrunner as (name, labels, value)."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    return [
        (name, dict(_LABEL.findall(labels)), float(value))
        for name, labels, value in _SAMPLE.findall(text)
    ]


def until(condition, port):
    """Scrape until *condition* is true of the samples; return them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        samples = []
        try:
            samples = scraped(port)
        except OSError as error:
            last = error
        else:
            last = samples
        if samples and condition(samples):
            return samples
        assert time.monotonic() < deadline, last
        time.sleep(0.1)


def value(samples, name, **labels):
    found = [v for n, ls, v in samples if n == name and ls.items() >= labels.items()]
    return found[0] if found else None


@contextmanager
def a_run(folder):
    """A process with a Ray, in which a run goes on; its port and, once it is there, its report."""
    import json

    command = [sys.executable, "-c", RUNS, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes) as process:
        try:
            yield lambda: json.loads(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(PATIENCE)


def is_held_up(samples):
    """Whether three shards are committed, and the fourth waits in the capability."""
    committed = value(samples, "batchrunner_shards", state="committed")
    return committed == 3 and value(samples, "batchrunner_rows_in_flight")


def is_over(samples):
    """Whether the last figures are there: Ray exports each gauge for itself, the memory last."""
    is_finishing = value(samples, "batchrunner_phase", phase="finishing") == 1
    return is_finishing and value(samples, "batchrunner_worker_peak_bytes", kind="write")


@pytest.mark.ray
def test_metrics_move_during_a_run_and_end_at_its_report(tmp_path):
    """A dashboard that stands still, or disagrees with the report, is worse than none."""
    for shard in range(4):
        write_jsonl(tmp_path / f"in/{shard}.jsonl", rows(10 * shard, 10))
    with a_run(tmp_path) as read:
        port = read()["port"]
        during = until(is_held_up, port)
        (tmp_path / "gate").touch()
        samples = until(is_over, port)
        report = read()

    assert value(during, "batchrunner_phase", phase="running") == 1
    assert value(during, "batchrunner_workers_busy") >= 1
    assert value(during, "batchrunner_shards", state="in_flight") == 1
    assert 0 < value(during, "batchrunner_rows_in_flight") < 10
    assert 0.5 < value(during, "batchrunner_share") < 1
    assert report["ok"]
    for name in ("rows_in", "rows_out", "rows_failed", "bytes_out"):
        assert value(samples, f"batchrunner_{name}") == report[name] > 0, name
    shards = {state: value(samples, "batchrunner_shards", state=state) for state in STATES}
    assert shards == {"pending": 0, "in_flight": 0, "committed": 4, "failed": 0}
    assert value(samples, "batchrunner_share") == 1
    assert value(samples, "batchrunner_rows_allowed") == 5
    phases = {labels["phase"]: v for n, labels, v in samples if n == "batchrunner_phase"}
    assert [phase for phase, is_on in phases.items() if is_on] == ["finishing"]
    assert {name for name, _, _ in samples} >= METRICS.keys() - {"batchrunner_seconds_left"}
    # Reading ten rows may take less than the millisecond that is measured.
    assert value(samples, "batchrunner_stage_seconds", stage="reading") >= 0
    [name] = {ls["stage"] for n, ls, _ in samples if ls.get("kind") == "stage"}
    assert name == "echo_unless_13"
    assert value(samples, "batchrunner_worker_seconds", stage=name, doing="calling") > 0
    for _, labels, _ in samples:
        assert (labels["run"], labels["run_uid"]) == ("nightly", report["run_uid"])


STATES = ("pending", "in_flight", "committed", "failed")


def test_the_rate_is_that_of_the_last_half_minute():
    """A run that stands still is seen to stand still."""
    now = [0.0]
    rate = RowRate(lambda: now[0])
    seen = []
    for now[0], done in [(0.0, 0), (10.0, 100), (20.0, 300), (60.0, 300), (90.0, 300), (100.0, 50)]:
        seen.append(rate.of(done))

    assert seen == [0.0, 10.0, 15.0, 0.0, 0.0, 0.0]
