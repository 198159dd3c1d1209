"""`status --watch`: the live view of a run from its checkpoint alone."""

from __future__ import annotations

import re
import signal
from collections import Counter

import pytest

from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.watching import Watching
from builders import a_source
from command import a_spec_file, batchrunner, start
from emulator import Terminal
from patience import PATIENCE
from progress_events import events_of


@pytest.fixture
def running(tmp_path):
    """A run of three shards whose last one waits for the file `go`."""
    a_source(tmp_path / "in", shards=3)
    target = {"target": "capabilities:waits_at_the_end", "fn_kwargs": {"path": f"{tmp_path}/go"}}
    a_spec_file(tmp_path, capability=target)
    with start("run", "spec.yaml", "-v", cwd=tmp_path) as process:
        read_until(process.stderr, "plan_made")
        yield process
        process.kill()


def watched(folder, *arguments, **how):
    return start("status", "spec.yaml", "--watch", "--every", "0.5", *arguments, cwd=folder, **how)


def read_until(stream, pattern):
    """Read lines until one matches *pattern*, and return it."""
    while not re.search(pattern, line := stream.readline()):
        assert line, f"ended before {pattern}"
    return line


def test_a_watch_ends_with_the_run_and_says_that_it_is_complete(running, tmp_path):
    """In a script, `status --watch && verify` waits for a run that another machine does."""
    with watched(tmp_path) as watch:
        read_until(watch.stderr, r"0/3 shards|1/3 shards|2/3 shards")
        (tmp_path / "go").touch()
        stdout, _ = watch.communicate(timeout=PATIENCE)

    assert watch.returncode == 0
    assert re.search(r"^state +complete$", stdout, re.MULTILINE)


def test_a_watch_of_a_run_that_is_killed_says_that_work_is_left(running, tmp_path):
    """The person who watches is the first to know, and gets the line to paste."""
    with watched(tmp_path) as watch:
        read_until(watch.stderr, r"/3 shards")
        running.kill()
        stdout, _ = watch.communicate(timeout=PATIENCE)

    assert watch.returncode == 75
    assert re.search(r"^state +interrupted$", stdout, re.MULTILINE)
    assert re.search(r"^next +batchrunner run spec.yaml$", stdout, re.MULTILINE)


def test_a_watch_of_a_run_whose_shards_failed_says_so(tmp_path):
    """Running it again would not mend it."""
    a_source(tmp_path / "in", shards=3)
    a_spec_file(tmp_path, capability="capabilities:fails_on_5", errors={"max_row_errors": 0})
    batchrunner("run", "spec.yaml", cwd=tmp_path)

    done = batchrunner("status", "spec.yaml", "--watch", cwd=tmp_path)

    assert done.returncode == 1


def test_ctrl_c_ends_the_watch_quietly_and_not_the_run(running, tmp_path):
    """To look at a run must never be a risk for it."""
    with watched(tmp_path) as watch:
        read_until(watch.stderr, r"/3 shards")
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=PATIENCE)

    assert watch.returncode == 130
    assert all("/3 shards" in line for line in said.split("\n") if line)
    assert running.poll() is None


def test_json_lines_are_those_of_progress_events(running, tmp_path):
    """One schema, whether a program reads the run itself or its checkpoint."""
    with watched(tmp_path, "-o", "json") as watch:
        lines = [read_until(watch.stdout, '"event": "progress"')]
        (tmp_path / "go").touch()
        lines += watch.communicate(timeout=PATIENCE)[:1]

    events = events_of("".join(lines))
    assert events[-1]["event"] == "status"
    assert events[-1]["exit_code"] == watch.returncode == 0
    assert events[-1]["status"]["state"] == "complete"


def test_a_terminal_shows_the_live_view(running, tmp_path, request):
    """The same view as beside the run, from any machine."""
    terminal = Terminal("status", "spec.yaml", "--watch", cwd=tmp_path, lines=40)
    request.addfinalizer(terminal.close)
    terminal.until(lambda t: any(re.match(r"shards  .*\d of 3$", line) for line in t.screen))
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    assert any(re.match(r"state +complete", line) for line in terminal.scrolled)
    assert not [line for line in terminal.scrolled if line.startswith("shards  ━")]


class Counted:
    """A storage that counts the calls."""

    def __init__(self, inner):
        self._inner, self.calls = inner, Counter()

    def __getattr__(self, name):
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        def counted(*args, **kwargs):
            self.calls[name] += 1
            return method(*args, **kwargs)

        return counted


def test_a_look_costs_two_listings_and_two_reads_however_many_shards_there_are(running, tmp_path):
    """A watch that read each sentinel would cost more requests than the run."""
    storage = Counted(open_storage(str(tmp_path / "out" / "_checkpoint")))
    watching = Watching(Checkpoint.current(storage))
    while not watching.progress.workers:  # until the driver has stored its figures
        watching.refresh()

    storage.calls.clear()
    watching.refresh()

    assert storage.calls == {"list": 2, "get": 2}
