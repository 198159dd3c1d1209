"""What ends a process costs a row when the row raises it, and nothing when it comes from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from operator import attrgetter
from pathlib import Path

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint, PlanFacts
from batchrunner.checkpoint.marks import marked
from batchrunner.errors import CapabilityImportError
from batchrunner.execute.payload import pickled
from batchrunner.formats.jsonl_reader import parse
from batchrunner.formats.lines import LineBlock
from batchrunner.shard import Slicing
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from batchrunner.worker.batch import Batch, ChunkRows
from batchrunner.worker.isolation import Bounds, IsolatedCaller, Sending
from batchrunner.worker.metering import Admission, MeteredGate
from batchrunner.worker.waiting import Waits
from batchrunner.worker.work import Work
from builders import a_source, a_spec, rows, rows_out, write_jsonl
from capabilities import ENDS
from command import ENVIRONMENT, TESTS, a_spec_file, batchrunner, start
from patience import PATIENCE
from shards import one_slice

BAD = 13
MODES = {
    "batch": "capabilities:ends",
    "row": {"target": "capabilities:ends_by_row", "mode": "row"},
    "generator": "capabilities:ends_in_pieces",
    "when it is read": "capabilities:ends_when_read",
    "async": "capabilities:ends_later",
    "async by row": {"target": "capabilities:ends_later_by_row", "mode": "row"},
    "async generator": "capabilities:ends_later_in_pieces",
    "async task": "capabilities:ends_in_a_task_of_its_own",
    "run": {"target": "capabilities:EndsAsRuns", "mode": "run"},
}
NAMES = {
    "exit-0": ("SystemExit", "0"),
    "exit-5": ("SystemExit", "5"),
    "interrupt": ("KeyboardInterrupt", "of the row"),
    "cancelled": ("CancelledError", "of the row"),
    "generator-exit": ("GeneratorExit", "of the row"),
    "own": ("OwnEndError", "of the row"),
}


def twenty(folder, **bad):
    """Twenty rows, some of them bad: by position, how they end."""
    content = [{**row, "config": {"id": row["id"]}} for row in rows(0, 20)]
    for name, end in bad.items():
        content[int(name.strip("_"))].update(ends=end, config={"id": 0, "ends": end})
    write_jsonl(folder / "in/in.jsonl", content)


def one_may_fail(folder, **changes):
    errors = {"max_row_errors": 10, "retry": {"max_attempts": 1}, **changes.pop("errors", {})}
    store = str(folder / "store")
    return a_spec(folder, errors=errors, analytics_store=store, **changes)


def dead_letters(folder):
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    return [
        (dead_letter["error"], dead_letter["message"])
        for dead_letter in read_dead_letters(checkpoint)
    ]


def marks(folder):
    return list((folder / "out/_checkpoint").glob("attempts/*.json"))


def wait_for(happened, process=None):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ENDS)
def test_a_row_that_raises_what_ends_a_process_is_one_bad_row(tmp_path, end, mode):
    """It ended the session, with exit code 0 and nothing done, or for ever waited for an answer."""
    twenty(tmp_path, **{f"_{BAD}": end})

    report = BatchRunner(one_may_fail(tmp_path, capability=MODES[mode])).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 19, 1)
    assert dead_letters(tmp_path) == [NAMES[end]]
    assert not marks(tmp_path)


def test_in_a_process_of_its_own_it_is_the_same_bad_row(tmp_path):
    """There it is one bad call, and ends nothing."""
    twenty(tmp_path, **{f"_{n}": end for n, end in enumerate(ENDS)})
    spec = one_may_fail(tmp_path, capability="capabilities:ends", errors={"batch_timeout": "60s"})

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out) == (0, 20 - len(ENDS))
    assert dead_letters(tmp_path) == [NAMES[end] for end in ENDS]


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("mode", ["batch", "async task"])
def test_on_ray_it_is_the_same_bad_row(tmp_path, mode):
    """Ray started the worker again, for ever, or ended the run with exit code 3 at each try."""
    twenty(tmp_path, **{f"_{n}": end for n, end in enumerate(ENDS)})
    spec = one_may_fail(tmp_path, capability=MODES[mode], execution={"engine": "ray"})

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out) == (0, 20 - len(ENDS))
    assert dead_letters(tmp_path) == [NAMES[end] for end in ENDS]
    assert not marks(tmp_path)


def test_an_error_whose_message_cannot_be_made_is_one_bad_row(tmp_path):
    """Making it runs the user's code once more, outside of the call."""
    twenty(tmp_path, **{f"_{BAD}": "own"})
    target = "capabilities:ends_with_a_message_that_ends"

    report = BatchRunner(one_may_fail(tmp_path, capability=target)).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 19, 1)
    [(error, message)] = dead_letters(tmp_path)
    assert (error, "cannot be formatted: SystemExit" in message) == ("EndsInItsMessageError", True)


@pytest.mark.parametrize("budget", [0, 1])
def test_a_row_that_exits_does_not_choose_the_exit_code(tmp_path, budget):
    """A scheduler takes 0 for done, and 5 for damage that `verify` found."""
    twenty(tmp_path, _3="exit-5")
    a_spec_file(tmp_path, capability="capabilities:ends", errors={"max_row_errors": budget})

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == (0 if budget else 1), done.stderr
    assert "19 out, 1 failed" in done.stderr or not budget


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("end", ["exit-0", "interrupt", "own"])
def test_a_constructor_that_exits_is_a_capability_that_cannot_be_built(tmp_path, end, apart):
    """No shard can succeed, and the name of the error says why."""
    a_source(tmp_path / "in", shards=1)
    target = {"target": "capabilities:EndsWhenBuilt", "fn_constructor_kwargs": {"end": end}}
    errors = {"batch_timeout": "60s"} if apart else {}

    with pytest.raises(CapabilityImportError, match=f"cannot be built: {NAMES[end][0]}"):
        BatchRunner(a_spec(tmp_path, capability=target, errors=errors)).run()


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_on_ray_such_a_constructor_ends_the_run_too(tmp_path):
    """Ray would build the actor again, for ever."""
    a_source(tmp_path / "in", shards=1)
    target = {"target": "capabilities:EndsWhenBuilt", "fn_constructor_kwargs": {"end": "exit-0"}}

    with pytest.raises(CapabilityImportError, match="cannot be built: SystemExit"):
        BatchRunner(a_spec(tmp_path, capability=target, execution={"engine": "ray"})).run()


@pytest.mark.parametrize("error", ["SystemExit(0)", "KeyboardInterrupt"])
def test_a_module_that_exits_when_it_is_imported_ends_with_code_3(tmp_path, error):
    """A script without its `if __name__` guard does that."""
    a_source(tmp_path / "in", shards=1)
    (tmp_path / "script.py").write_text(f"def f(rows):\n    return rows\nraise {error}\n")
    a_spec_file(tmp_path, capability="script:f")

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 3, done.stderr
    assert f"script.py:3: {error.partition('(')[0]}" in done.stderr


def test_code_that_exits_elsewhere_in_the_driver_does_not_choose_the_exit_code(tmp_path):
    """Code of the user's may run where no handler stands: when an argument is printed, say."""
    a_source(tmp_path / "in", shards=1)
    a_spec_file(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import batchrunner.runner as runner\n"
        "def leave(*_, **__): raise SystemExit(0)\n"
        "runner.open_run = leave\n"
    )
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])

    done = batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=path)

    assert done.returncode == 1, done.stderr
    assert "SystemExit: 0" in done.stderr


def test_ctrl_c_over_a_library_call_is_no_bad_row(tmp_path):
    """Python's own handler raises KeyboardInterrupt; the next run does the shard as if new."""
    a_source(tmp_path / "in", shards=1)
    script = """
        from batchrunner import BatchRunner
        from builders import a_spec
        from pathlib import Path
        BatchRunner(a_spec(Path.cwd(), capability="capabilities:very_slow")).run()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: marks(tmp_path), process)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)

    assert "KeyboardInterrupt" in stderr
    assert process.returncode == -signal.SIGINT
    assert not marks(tmp_path)
    assert not list(tmp_path.glob("out/part-*"))


def test_ctrl_c_in_a_terminal_ends_no_call_in_a_process_of_its_own(tmp_path):
    """The terminal signals the whole process group; the shard in flight is finished all the same."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=1)
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": f"{tmp_path}/go"}}
    a_spec_file(tmp_path, capability=waits, errors={"batch_timeout": "60s"})
    with start("run", "spec.yaml", cwd=tmp_path, group=True) as process:
        wait_for(lambda: list(tmp_path.glob("go-by-*")), process)
        os.killpg(process.pid, signal.SIGINT)
        wait_for(lambda: list(tmp_path.glob("out/_checkpoint/sessions/*.stop")), process)
        (tmp_path / "go").touch()
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, stderr
    assert rows_out(tmp_path / "out") == rows(0, 1)
    assert dead_letters(tmp_path) == []


@pytest.mark.ray
def test_rays_cancel_of_a_worker_is_an_interrupt_and_no_error_of_the_row(tmp_path, local_ray):
    """It simulates Ctrl-C in the worker, whose call must end at once."""
    from ray.exceptions import TaskCancelledError

    @local_ray.remote(max_retries=0)
    def work():
        from batchrunner.user_code import contained

        def call():
            (tmp_path / "begun").touch()
            while True:  # Ray interrupts between two steps of Python, not a step
                time.sleep(0.01)

        try:
            contained(call)
        except Exception as error:  # noqa: BLE001 - whatever would be a bad row
            (tmp_path / "bad-row").write_text(repr(error))

    task = work.remote()
    wait_for((tmp_path / "begun").exists)
    local_ray.cancel(task)

    with pytest.raises(TaskCancelledError):
        local_ray.get(task, timeout=PATIENCE)
    assert not (tmp_path / "bad-row").exists()


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("local", marks=pytest.mark.sweep),
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.soak]),
    ],
)
def test_ten_kills_of_a_driver_over_one_long_call_change_nothing(tmp_path, engine):
    """A spot machine is taken ten times; the eleventh is left alone, and no row is set aside."""
    a_source(tmp_path / "in", shards=1)
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": f"{tmp_path}/go"}}
    a_spec_file(tmp_path, capability=waits, execution={"engine": engine})
    for _ in range(10):
        with start("run", "spec.yaml", cwd=tmp_path) as process:
            wait_for(lambda: list(tmp_path.glob("go-by-*")), process)
            process.kill()
        for begun in tmp_path.glob("go-by-*"):
            begun.unlink()
    assert len(marks(tmp_path)) == 10
    (tmp_path / "go").touch()

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert rows_out(tmp_path / "out") == rows(0, 4)
    assert dead_letters(tmp_path) == []
    assert not marks(tmp_path)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_on_ray_the_deaths_of_other_drivers_give_no_shard_up(tmp_path):
    """What ten of them left that were killed together with their workers."""
    a_source(tmp_path / "in", shards=2)
    spec = a_spec(tmp_path, capability="capabilities:echo", execution={"engine": "ray"})
    storage = open_storage(str(tmp_path / "out/_checkpoint"))
    kept = [marked(storage, [0], session=f"{n}", node="elsewhere") for n in range(10)]
    for mark in kept:
        mark.__enter__()

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.failures) == (0, {})
    assert rows_out(tmp_path / "out") == rows(0, 8)


@pytest.mark.ray
@pytest.mark.soak
def test_nodes_that_are_lost_under_a_driver_do_not_count_against_the_shard(tmp_path):
    """The driver sees the worker die, and Ray knows that its node did; the shard is not isolated."""
    a_source(tmp_path / "in", shards=1)

    done = subprocess.run(
        [sys.executable, str(TESTS / "lost_nodes.py"), str(tmp_path)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert "0 0 3 0" in done.stdout.splitlines(), done.stderr[-3000:]  # among Ray's own lines
    assert rows_out(tmp_path / "out") == rows(0, 4)


@pytest.mark.parametrize("hoards", [False, pytest.param(True, marks=pytest.mark.sweep)])
def test_a_row_that_takes_all_memory_is_set_aside_and_the_machine_lives(tmp_path, hoards):
    """The process that it is called in may allocate so much and no more; one that holds on is ended."""
    content = [{**row, "bad": True} if row["id"] == BAD else row for row in rows(0, 20)]
    write_jsonl(tmp_path / "in/in.jsonl", content)
    target = "hoards_memory_on_bad" if hoards else "takes_all_memory_on_bad"
    spec = one_may_fail(
        tmp_path,
        capability=f"capabilities:{target}",
        execution={"engine": "local", "memory": "512MiB"},
        errors={"batch_timeout": "60s"},
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 19, 1)
    [(error, message)] = dead_letters(tmp_path)
    assert "MemoryError" in error
    assert "may take 0.5 GiB, see execution.memory" in message


def test_a_row_that_takes_all_memory_leaves_the_batches_after_it_as_large_as_they_were(tmp_path):
    """It was the row that was too much, and not the size of its batch."""
    content = [{**row, "bad": True} if row["id"] == BAD else row for row in rows(0, 256)]
    write_jsonl(tmp_path / "in/in.jsonl", content)
    target = {
        "target": "capabilities:counts_calls_without_memory",
        "fn_kwargs": {"path": str(tmp_path / "calls")},
    }
    execution = {"engine": "local", "batch_size": 64}

    report = BatchRunner(one_may_fail(tmp_path, capability=target, execution=execution)).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 255, 1)
    assert (tmp_path / "calls").read_text().split()[-3:] == ["64"] * 3


@pytest.mark.parametrize(
    ("how", "times"),
    [(signal.SIGKILL, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 2)],
    ids=["killed", "stopped", "stopped twice"],
)
def test_the_isolated_process_ends_with_its_owner_however_that_ends(tmp_path, how, times):
    """It kept its model, and the memory of a GPU, until a call returned that hangs for ever."""
    a_source(tmp_path / "in", shards=1)
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": f"{tmp_path}/go"}}
    execution = {"engine": "local", "grace_period": "25s" if times == 2 else "2s"}
    a_spec_file(tmp_path, capability=waits, errors={"batch_timeout": "2h"}, execution=execution)
    with start("run", "spec.yaml", cwd=tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("go-by-*")), process)
        [isolated] = [int(path.name.rpartition("-")[2]) for path in tmp_path.glob("go-by-*")]
        assert isolated != process.pid
        process.send_signal(how)
        if times == 2:  # a second one does not wait for the call
            wait_for(lambda: list(tmp_path.glob("out/_checkpoint/sessions/*.stop")), process)
            process.send_signal(how)
        process.communicate(timeout=PATIENCE)

    assert process.returncode == (143 if how == signal.SIGTERM else -how)
    wait_for(lambda: is_gone(isolated))
    assert not list(tmp_path.glob("out/part-*"))


def test_the_isolated_process_outlives_the_thread_that_made_its_first_call(tmp_path):
    """The kernel ends it with the thread that started it, in the middle of an innocent row's call."""
    spec = a_spec(tmp_path, capability="capabilities:with_pid")
    facts = PlanFacts(width=5, format="jsonl", compression="", unit="bytes", count=1)
    work = Work(spec=spec, run_uid="run", session="session", facts=facts, weight=1)
    caller = IsolatedCaller(
        pickled(work),
        admission=Admission(MeteredGate(), Waits()),
        sending=Sending(attrgetter("input_types"), by_rows=True),
        bounds=Bounds(timeout=60),
    )
    chunk = parse(LineBlock(b'{"id": 1}\n', 0), columns=None)
    one_row = ChunkRows(one_slice(0, "in.jsonl", Slicing.FILE, 0, 10, 10, ""), 0, chunk, 0, 1)

    def pid():
        [[piece]] = caller.submit(Batch((one_row,)))()
        return json.loads(piece.rows)["by"].partition("-")[0]

    with closing(caller):
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(pid).result()
        assert pid() == first != str(os.getpid())


def is_gone(pid):
    """Return whether process *pid* has ended; one that its new parent has not asked for yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_what_a_call_started_ends_with_the_process_of_the_call(tmp_path):
    """Each call that was not over in time left a program behind, for good."""
    (tmp_path / "waits.py").write_text(
        "import subprocess\n"
        "def call(rows):\n"
        "    program = subprocess.Popen(['sleep', '600'])\n"
        "    open('pids', 'a').write(f'{program.pid} ')\n"
        "    program.wait()\n"
    )
    a_source(tmp_path / "in", shards=1, rows_per_shard=1)
    errors = {"batch_timeout": "2s", "retry": {"max_attempts": 1}, "max_row_errors": 1.0}
    a_spec_file(tmp_path, capability="waits:call", errors=errors)

    batchrunner("run", "spec.yaml", cwd=tmp_path)

    for pid in (tmp_path / "pids").read_text().split():
        wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists())
