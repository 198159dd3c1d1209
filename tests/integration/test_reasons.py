"""A failure names at once what the user's code raised, on which line, and for which row."""

from __future__ import annotations

import gzip
import json
import pickle
from pathlib import Path

import pytest

import failing
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.dead_letters import (
    DeadLetter,
    Stage,
    dead_letters_under,
    keep_dead_letters,
    kept_dead_letters,
)
from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Position
from batchrunner.shard import Slicing
from batchrunner.spec import ErrorsSpec
from batchrunner.storage import open_storage
from batchrunner.verify import verify
from batchrunner.views.dead_letters import error_groups, read_dead_letters
from batchrunner.views.garbage import Garbage, GarbageKind
from batchrunner.worker.budget import Budget
from builders import a_source, a_spec, rows, rows_out, write_jsonl
from shards import one_slice
from tars import tar_of

SOURCE = Path(failing.__file__).read_text().splitlines()
PLACE = next(
    f"{failing.__file__}:{number}"
    for number, line in enumerate(SOURCE, start=1)
    if line.strip() == 'return rows["txt"]'
)


@pytest.fixture(params=["local", "ray"])
def engine(request):
    """Both of them, with the Ray that all tests share."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
    return request.param


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint.current(open_storage(str(folder / "out/_checkpoint")))


def dead_letters(folder):
    return list(read_dead_letters(checkpoint(folder)))


def a_misspelt_spec(folder, *, target="misspelt", mode="batch", **changes):
    how = "fn_constructor_kwargs" if target == "MisspeltModel" else "fn_kwargs"
    capability = {"target": f"failing:{target}", "mode": mode, how: {"path": f"{folder}/calls"}}
    return a_spec(folder, capability=capability, **changes)


def a_strict_spec(folder, *, errors):
    capability = {"target": "failing:strict", "fn_kwargs": {"path": f"{folder}/calls"}}
    return a_spec(folder, capability=capability, errors=errors)


def with_bad(count, bad, kind=True):
    return [{**row, "bad": kind} if row["id"] in bad else row for row in rows(0, count)]


HOW = {
    "rows": {},
    "numpy": {"execution": {"batch_format": "numpy"}},
    "pandas": {"execution": {"batch_format": "pandas"}},
    "pyarrow": {"execution": {"batch_format": "pyarrow"}},
    "by row": {"mode": "row"},
    "small batches": {"execution": {"batch_size": 16}},
    "single rows": {"execution": {"batch_size": 1}},
    "async": {"target": "misspelt_later"},
    "async by row": {"target": "misspelt_later", "mode": "row"},
    "in another process": {"errors": {"batch_timeout": 60}},
    "a model": {"target": "MisspeltModel"},
}
ON_RAY = ("rows", "a model")


def fails_with_everything(folder, engine, how, **errors):
    write_jsonl(folder / "in/a.jsonl", rows(0, 5000))
    changes = {**HOW[how]}
    changes["execution"] = {"engine": engine, **changes.get("execution", {})}
    changes["errors"] = {**changes.get("errors", {}), **errors}
    return BatchRunner(a_misspelt_spec(folder, **changes)).run()


@pytest.mark.parametrize(
    ("engine", "how"),
    [*(("local", how) for how in HOW), *(("ray", how) for how in ON_RAY)],
    indirect=["engine"],
)
def test_a_misspelt_column_costs_a_handful_of_calls_and_is_named_with_its_line(
    tmp_path, engine, how
):
    """With a model on a GPU, thousands of calls are minutes, and a count of rows explains nothing."""
    report = fails_with_everything(tmp_path, engine, how)

    (failure,) = report.failures.values()
    assert (report.exit_code, report.stopped) == (1, "max_row_errors")
    assert f"(at {PLACE})" in failure.reason
    assert "'txt'" in failure.reason or '"txt"' in failure.reason
    assert '; one of them: {"id": ' in failure.reason
    assert "No call has succeeded" in failure.reason
    assert 'return rows["txt"]' in failure.traceback
    assert "/batchrunner/" not in failure.traceback
    assert sum(failing.calls(tmp_path)) < 20


def unwritable(rows):
    return [{**row, "text": {row["text"]}} for row in rows]


@pytest.mark.parametrize(("sink", "named"), [("jsonl", "set"), ("tar", "__key__")])
@pytest.mark.parametrize("timeout", [None, 60])
def test_it_is_not_said_of_a_call_that_returns_what_the_sink_refuses(
    tmp_path, sink, named, timeout
):
    """Nothing is wrong with the call, and its code would be looked at for nothing."""
    write_jsonl(tmp_path / "in/a.jsonl", rows(0, 5000))
    where = {"uri": str(tmp_path / "out"), "format": sink}
    spec = a_spec(tmp_path, sink=where, errors={"batch_timeout": timeout})

    [failure] = BatchRunner(spec, capability=unwritable).run().failures.values()

    assert "No row could be written; if the other rows fail, too" in failure.reason
    assert named in failure.reason
    assert "No call" not in failure.reason


def write_tars(folder, *, files, each):
    folder.mkdir()
    for file in range(files):
        found = [{"__key__": f"{n:05}", "txt": b"hello", "cls": b"1"} for n in range(each)]
        (folder / f"{file}.tar").write_bytes(tar_of(found))


def write_gzip(folder, *, files, each, rows=rows):
    folder.mkdir()
    for file in range(files):
        lines = "".join(json.dumps(row) + "\n" for row in rows(file * each, each))
        (folder / f"{file:03}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


@pytest.mark.parametrize("batch_size", [16, 256])
@pytest.mark.parametrize(("errors", "most"), [({}, 40), ({"max_row_errors": 0.001}, 400)])
@pytest.mark.parametrize(
    ("write", "files", "each"),
    [(write_tars, 1, 300), (write_tars, 20, 700), (write_gzip, 1, 300), (write_gzip, 10, 3000)],
)
def test_so_it_is_where_no_file_says_how_many_rows_it_has(
    tmp_path, write, files, each, errors, most, batch_size
):
    """Small members of a tar must not be taken for far more rows. A share that is set is judged by 100 rows."""
    write(tmp_path / "in", files=files, each=each)
    execution = {"engine": "local", "batch_size": batch_size}

    spec = a_misspelt_spec(tmp_path, target="MisspeltModel", execution=execution, errors=errors)
    report = BatchRunner(spec).run()

    assert (report.exit_code, report.stopped) == (1, "max_row_errors")
    assert sum(failing.calls(tmp_path)) < most


def test_so_it_is_among_so_many_rows_that_a_thousandth_of_them_is_many_batches(tmp_path):
    """The default budget is no wish to see ten thousand rows fail; a budget that is set is one."""
    spec = ErrorsSpec()
    for policy, tried in ((spec, True), (ErrorsSpec(max_row_errors=0.001), False)):
        budget = Budget(policy, whole=10**9)
        shard = one_slice(0, "a", Slicing.BYTES, 0, 10**6, 10**6, "", rows=10**4, weight=10**6)
        assert (budget.samples(shard, rows=1024) > 0) is tried
        copy = pickle.loads(pickle.dumps(policy))
        assert (Budget(copy, whole=10**9).samples(shard, rows=1024) > 0) is tried


@pytest.mark.parametrize(("bad", "budget"), [(90, 90), (90, 0.05), (4, 0.001)])
def test_a_compressed_source_whose_first_rows_are_bad_goes_on_within_its_budget(
    tmp_path, bad, budget
):
    """Batches of one row, none of which has succeeded yet."""

    def some(first, count):
        return [{**row, "bad": row["id"] < bad} for row in rows(first, count)]

    write_gzip(tmp_path / "in", files=1, each=4000, rows=some)
    errors = {"max_row_errors": budget, "retry": {"max_attempts": 1}}
    execution = {"engine": "local", "batch_size": 16}
    spec = a_spec(tmp_path, capability="failing:strict", errors=errors, execution=execution)

    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_failed) == (True, bad), report.failures


@pytest.mark.parametrize("how", ["rows", "async by row"])
def test_so_it_is_where_a_row_is_to_fail_its_shard(tmp_path, how):
    """All attempts at the shard together."""
    report = fails_with_everything(tmp_path, "local", how, on_row_error="fail")

    assert f"KeyError: 'txt' (at {PLACE}); the row: {{\"id\": 0" in report.quarantined[0]
    assert 'return rows["txt"]' in report.failures[0].traceback
    assert sum(failing.calls(tmp_path)) < 20


def test_over_many_shards_each_worker_makes_its_handful_of_calls(tmp_path, engine):
    """The run stops after the first ones, and not when each shard has been tried."""
    a_source(tmp_path / "in", shards=40, rows_per_shard=100)
    execution = {"engine": engine, **({} if engine == "local" else {"concurrency": 2})}

    report = BatchRunner(
        a_misspelt_spec(tmp_path, target="MisspeltModel", execution=execution)
    ).run()

    assert report.stopped == "max_row_errors"
    assert len(report.failures) <= len(failing.calls(tmp_path))
    assert max(failing.calls(tmp_path)) < 20


@pytest.mark.parametrize(
    ("bad", "budget", "batch_size"),
    [
        (range(5), 0.001, 1),
        (range(5), 0.001, 5),
        (range(5), 0.001, 1024),
        (range(10), 10, 5),
        ({0, 5000, 9999}, 0.001, 10_000),
        (range(0, 2000, 2), 0.11, 64),
        (range(0, 2000, 2), 0.11, 1024),
        (range(60), 1.0, 8),
    ],
)
def test_rows_that_the_budget_bears_are_not_taken_for_code_that_fails_everything(
    tmp_path, bad, budget, batch_size
):
    """Also at the very beginning, when no call has succeeded yet."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(10_000, set(bad)))
    spec = a_spec(
        tmp_path,
        capability="failing:strict",
        errors={"max_row_errors": budget, "retry": {"max_attempts": 1}},
        execution={"engine": "local", "batch_size": batch_size},
    )

    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_failed) == (True, len(bad)), report.failures
    assert len(rows_out(tmp_path / "out")) == 10_000 - len(bad)


def test_a_service_that_is_away_for_the_first_tries_costs_nothing(tmp_path):
    """A row has all its tries before the code is called broken."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=1000)
    left = [5]

    def away(rows):
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionError("the service is away")
        return rows

    spec = a_spec(tmp_path, capability=None, errors={"retry": {"max_attempts": 5}})
    report = BatchRunner(spec, capability=away).run()

    assert (report.ok, report.rows_failed) == (True, 0)


def test_a_spent_budget_ends_the_run_in_the_middle_of_a_batch(tmp_path):
    """The rows after that could change nothing, and each costs calls."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(4000, set(range(1024, 4000))))

    report = BatchRunner(a_strict_spec(tmp_path, errors={})).run()

    assert report.stopped == "max_row_errors"
    assert "101 of its first 2,048 rows failed, more than" in report.failures[0].reason
    assert sum(failing.calls(tmp_path)) < 600


def test_the_most_frequent_error_is_the_one_that_is_reported(tmp_path):
    """Not the last, nor the first."""
    source = with_bad(2000, set(range(1024, 2000)))
    for number in (1024, 1030):
        source[number]["bad"] = "seldom"
    write_jsonl(tmp_path / "in/a.jsonl", source)

    report = BatchRunner(a_strict_spec(tmp_path, errors={})).run()

    assert "ValueError: row 1025 is bad" in report.failures[0].reason
    assert "99 of 101 failed rows; one of them: " in report.failures[0].reason
    assert 'raise ValueError(f"row' in report.failures[0].traceback


def test_too_many_rows_of_many_shards_are_reported_with_their_reason(tmp_path):
    """No shard has failed, and the run has."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(3, {0, 1, 2}))

    report = BatchRunner(a_strict_spec(tmp_path, errors={})).run()

    assert (report.rows_failed, report.failures) == (3, {})
    assert report.row_error.startswith("ValueError: row 0 is bad (at ")
    assert report.row_error.endswith(
        "3 of the failed rows; one of them: " + json.dumps({"id": 0, "text": "row 0", "bad": True})
    )
    assert "strict" in report.row_traceback


def test_rows_that_failed_again_count_once_and_verify_does_not_ask_for_another_run(tmp_path):
    """Another run, or a retry without a fix, changes nothing."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(3, {1, 2}))
    spec = a_strict_spec(tmp_path, errors={})
    BatchRunner(spec).run()

    for _ in range(2):
        report = BatchRunner(spec).retry(rows=True)
        assert ", 2 of the failed rows; one of them: " in report.row_error

    assert (report.exit_code, report.rows_failed) == (1, 2)
    [note] = verify(spec).notes
    assert "too many rows failed: 2 of 3, where errors.max_row_errors allows 0: fix" in note
    assert "retry --rows" in note


def test_a_row_set_aside_keeps_the_line_of_code(tmp_path):
    """In this process, and in one of its own; the first of a kind also its traceback."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(100, {3, 50, 70}))
    for timeout in (None, 60):
        errors = {"max_row_errors": 3, "batch_timeout": timeout}
        report = BatchRunner(a_strict_spec(tmp_path, errors=errors)).run(fresh=True)

        assert report.rows_failed == 3
        found = dead_letters(tmp_path)
        assert {dead_letter["code"].rpartition(":")[0] for dead_letter in found} == {
            failing.__file__
        }
        assert [bool(dead_letter.get("traceback")) for dead_letter in found] == [True, False, False]
        assert "/batchrunner/" not in found[0]["traceback"]


@pytest.mark.parametrize(
    ("engine", "on_row_error"),
    [("local", "record"), ("local", "fail"), ("ray", "fail")],
    indirect=["engine"],
)
def test_the_rows_that_failed_a_shard_are_kept_until_it_is_committed(
    tmp_path, engine, on_row_error
):
    """They explain the failure; once there is none, they are garbage."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=500)
    mended = tmp_path / "mended"
    spec = a_spec(
        tmp_path,
        capability={"target": "failing:fails_once_there_is", "fn_kwargs": {"path": str(mended)}},
        execution={"engine": engine},
        errors={"on_row_error": on_row_error},
    )

    assert not BatchRunner(spec).run().ok
    assert not BatchRunner(spec).retry().ok  # the last attempt counts, and not both
    found = dead_letters(tmp_path)
    assert len(list((tmp_path / "out/_checkpoint/errors").iterdir())) == 2
    assert 0 < len(found) <= 10
    assert len({dead_letter["at"] for dead_letter in found}) == len(found)
    assert {(dead_letter["shard_failed"], dead_letter["error"]) for dead_letter in found} == {
        (True, "ValueError")
    }
    [group] = error_groups(checkpoint(tmp_path))
    assert (group.shard_failed, group.shards, group.rows) == (True, 1, len(found))

    mended.touch()
    assert BatchRunner(spec).retry().ok
    assert dead_letters(tmp_path) == []
    assert not list((tmp_path / "out/_checkpoint/errors").iterdir())


def test_of_a_shard_that_failed_no_more_than_a_hundred_rows_are_kept(tmp_path):
    """They explain; they are not the rows that are lost."""
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(2000, set(range(1024, 2000))))

    BatchRunner(a_strict_spec(tmp_path, errors={"max_row_errors": 300})).run()

    assert len(dead_letters(tmp_path)) == 100


def test_the_dead_letters_of_the_latest_driver_count_whatever_clocks_say(tmp_path):
    """A worker of a driver that was displaced may keep its own later, or on a clock that is ahead."""
    kept = {}
    for epoch in (2, 1):
        row = DeadLetter(0, "in", Position("byte", epoch, b"{}"), Stage.CAPABILITY, "E", "m")
        keep_dead_letters(checkpoint(tmp_path), "part-00000", [row], epoch=epoch)
        kept = kept_dead_letters(checkpoint(tmp_path))

    [dead_letter] = dead_letters_under(checkpoint(tmp_path), kept["part-00000"])
    assert dead_letter["at"] == 2


def test_clean_removes_them_once_their_shard_is_committed(tmp_path):
    """Not before."""
    a_source(tmp_path / "in", shards=2, rows_per_shard=4)
    mended = tmp_path / "mended"
    how = {"target": "failing:fails_once_there_is", "fn_kwargs": {"path": str(mended)}}
    spec = a_spec(tmp_path, capability=how, errors={"on_row_error": "fail"})
    assert len(BatchRunner(spec).run().quarantined) == 2
    garbage = Garbage(checkpoint(tmp_path), sink=None)

    assert [one for one in garbage.listed() if one.kind is GarbageKind.DEAD_LETTERS] == []
    mended.touch()
    (tmp_path / "out/_checkpoint/quarantine/part-00000.json").unlink()
    assert BatchRunner(spec).run().shards_committed == 1
    [garbage] = [one for one in garbage.listed() if one.kind is GarbageKind.DEAD_LETTERS]
    assert garbage.key.startswith("errors/part-00000.failed.")


KEY, TOKEN = "key-7f3a9c-\"'x", "token-7f3a9c"


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("local", "fail"),
        ("local", "later"),
        ("local", "in another process"),
        ("ray", "fail"),
    ],
    indirect=["engine"],
)
def test_a_secret_that_user_code_raises_is_masked_wherever_it_is_kept(
    tmp_path, engine, kind, monkeypatch
):
    """Dead letters, reasons and events are read by more people than the spec."""
    if engine == "local":
        monkeypatch.setenv("THE_TOKEN", TOKEN)
    write_jsonl(tmp_path / "in/a.jsonl", with_bad(100, {50}))
    write_jsonl(tmp_path / "in/b.jsonl", with_bad(100, {50}))
    target = "tells_later" if kind == "later" else "tells_its_secret"
    spec = a_spec(
        tmp_path,
        capability={"target": f"failing:{target}", "fn_kwargs": {"api_key": KEY}},
        execution={"engine": engine},
        ray={"runtime_env": {"env_vars": {"THE_TOKEN": TOKEN}}} if engine == "local" else {},
        errors={
            "on_row_error": "fail" if kind == "fail" else "record",
            "batch_timeout": 60 if kind == "in another process" else None,
        },
    )

    report = BatchRunner(spec).run()

    files = [path for path in (tmp_path / "out/_checkpoint").rglob("*") if path.is_file()]
    leaks = [path for path in files if b"7f3a9c" in path.read_bytes()]
    assert leaks == []
    said = json.dumps([report.to_dict(), *dead_letters(tmp_path)], default=str)
    assert "7f3a9c" not in said
    assert "401 for ***" in said


def test_so_it_is_in_the_message_of_a_model_that_cannot_be_built(tmp_path, engine):
    """Which also says where."""
    a_source(tmp_path / "in", shards=1)
    how = {"target": "failing:TellsWhenBuilt", "fn_constructor_kwargs": {"api_key": KEY}}
    spec = a_spec(tmp_path, capability=how, execution={"engine": engine})

    with pytest.raises(CapabilityImportError) as refusal:
        BatchRunner(spec).run()

    assert "PermissionError: 401 for *** (at " in str(refusal.value)
    assert failing.__file__ in str(refusal.value)
