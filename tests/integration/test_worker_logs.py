"""What a capability prints and logs is kept with the run."""
# ruff: noqa: T201 - printing is the subject

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from functools import partial

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.logs import log_lines
from batchrunner.worker.worker_log import FIRST_BYTES, LAST_BYTES, WorkerLog
from builders import a_source, a_spec
from command import batchrunner, start
from patience import PATIENCE


class Talks:
    """Says something in each way that there is."""

    def __init__(self):
        print("loading the model")
        logging.getLogger("model").warning("no GPU here")
        logging.getLogger("model").info("not worth keeping")

    def __call__(self, rows):
        for row in rows:
            print(f"row {row['id']}", file=sys.stderr)
        return rows


def kills_its_process(rows):
    print("last words")
    if any(row["id"] == 5 for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    return rows


def sets_logging_up(rows):
    logging.basicConfig(level=logging.INFO, format="mine: %(message)s", force=False)
    logging.getLogger("mine").info("seen %d", len(rows))
    return rows


def said(folder):
    checkpoint = Checkpoint.current(open_storage(str(folder / "out/_checkpoint")))
    return [line.text for line in log_lines(checkpoint)]


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_what_a_worker_prints_and_logs_is_kept_with_the_run(tmp_path, engine, request):
    """On Ray it lay in files of a node that may be gone; nothing said where."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in")

    report = BatchRunner(a_spec(tmp_path, execution={"engine": engine}), capability=Talks).run()

    lines = said(tmp_path)
    assert report.ok
    assert "loading the model" in lines
    assert "WARNING model: no GPU here" in lines
    assert {line for line in lines if line.startswith("row")} == {f"row {n}" for n in range(12)}
    assert not any("not worth keeping" in line for line in lines)


def test_the_last_words_before_a_call_killed_its_process_are_kept(tmp_path):
    """They say more than the signal."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=8)
    spec = a_spec(
        tmp_path,
        execution={"engine": "local", "batch_size": 4},
        errors={"batch_timeout": "60s", "max_row_errors": 1.0},
    )

    report = BatchRunner(spec, capability=kills_its_process).run()

    assert (report.rows_out, report.rows_failed) == (7, 1)
    assert said(tmp_path).count("last words") >= 3


def test_logging_that_the_capability_sets_up_is_its_own(tmp_path, monkeypatch, request):
    """A handler of ours on the root logger would turn its `basicConfig` into nothing."""
    root = logging.getLogger()
    request.addfinalizer(partial(root.setLevel, root.level))  # the next test has its own
    monkeypatch.setattr(root, "handlers", [])
    a_source(tmp_path / "in", shards=1)

    BatchRunner(a_spec(tmp_path), capability=sets_logging_up).run()

    assert said(tmp_path) == ["mine: seen 4"]


def test_a_worker_that_never_stops_talking_keeps_its_beginning_and_its_end(tmp_path):
    """The first lines say what a model lacks, the last ones what it died of."""
    log = WorkerLog().begin()
    log.store_in(open_storage(str(tmp_path / "out/_checkpoint")), session="s")
    for number in range(100_000):
        print(f"line {number}\rline {number} again")
    log.end()

    lines = said(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*.log"))
    assert (lines[0], lines[-1]) == ("line 0 again", "line 99999 again")
    assert size <= FIRST_BYTES + LAST_BYTES + 1024
    left_out = next(line for line in lines if line.startswith("…"))
    assert int(re.sub(r"\D", "", left_out)) == 100_000 - len(lines) + 1


def test_logs_shows_what_a_driver_that_was_killed_had_said(tmp_path):
    """In the morning the node may be gone; the bucket is there."""
    (tmp_path / "talks.py").write_text(
        "import time\n"
        "def call(rows):\n"
        "    print('stuck at', rows[0]['id'], '\\x1b]0;owned\\x07')\n"
        "    time.sleep(600)\n"
    )
    a_source(tmp_path / "in", shards=1)
    spec = {"capability": "talks:call", "source": "in", "sink": "out"}
    (tmp_path / "s.yaml").write_text(json.dumps({**spec, "execution": {"engine": "local"}}))
    with start("run", "s.yaml", cwd=tmp_path) as driver:
        deadline = time.monotonic() + PATIENCE
        while not list(tmp_path.rglob("*.log")) and time.monotonic() < deadline:
            time.sleep(0.1)
        driver.kill()

    shown = batchrunner("logs", "s.yaml", cwd=tmp_path)
    as_json = json.loads(batchrunner("logs", "s.yaml", "-o", "json", cwd=tmp_path).stdout)

    assert "stuck at 0 \\x1b]0;owned\\x07" in shown.stdout
    assert [line["text"] for line in as_json] == ["stuck at 0 \x1b]0;owned\x07"]
    assert shown.returncode == 0


def test_what_a_capability_prints_is_not_in_the_report(tmp_path):
    """`run -o json | jq` must work whatever the capability prints, in whatever process."""
    (tmp_path / "talks.py").write_text("def call(rows):\n    print('hello')\n    return rows\n")
    a_source(tmp_path / "in", shards=1)
    for timeout in (None, "60s"):
        spec = {"capability": "talks:call", "source": "in", "sink": f"out{timeout}"}
        spec |= {"execution": {"engine": "local"}, "errors": {"batch_timeout": timeout}}
        (tmp_path / "s.yaml").write_text(json.dumps(spec))

        done = batchrunner("run", "s.yaml", "-o", "json", cwd=tmp_path)

        assert json.loads(done.stdout)["ok"]
        assert "hello" in done.stderr


@pytest.mark.parametrize("timeout", [None, "60s"])
def test_warnings_and_odd_text_of_the_local_engine_are_kept_as_on_ray(tmp_path, timeout):
    """The command line's own log handler took the warnings; a lone surrogate ended the run."""
    (tmp_path / "talks.py").write_text(
        "import logging\n"
        "def call(rows):\n"
        "    logging.getLogger('model').warning('no GPU here')\n"
        "    print('name: \\udcff')\n"
        "    return rows\n"
    )
    a_source(tmp_path / "in", shards=1)
    spec = {"capability": "talks:call", "source": "in", "sink": "out"}
    spec |= {"execution": {"engine": "local"}, "errors": {"batch_timeout": timeout}}
    (tmp_path / "s.yaml").write_text(json.dumps(spec))

    done = batchrunner("run", "s.yaml", cwd=tmp_path)

    lines = said(tmp_path)
    assert done.returncode == 0, done.stderr
    assert any("no GPU here" in line for line in lines)
    assert any(line.startswith("name: ") for line in lines)


class TalksWhileItIsHeard(str):
    """As a finalizer or a signal handler does that prints while its thread is being heard."""

    __slots__ = ()

    def __radd__(self, before):
        print("in between")
        return before + str(self)


def test_what_prints_while_its_own_thread_is_heard_does_not_hang(tmp_path):
    """A lock that its holder waits for is a shard that never ends."""
    log = WorkerLog().begin()
    log.store_in(open_storage(str(tmp_path / "out/_checkpoint")), session="s")
    talking = threading.Thread(
        target=lambda: sys.stdout.write(TalksWhileItIsHeard("the rest\n")), daemon=True
    )
    talking.start()
    talking.join(30)

    assert not talking.is_alive()
    log.end()
    assert sorted(said(tmp_path)) == ["in between", "the rest"]
