"""The command line: what it prints where, and the code it ends with."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest

from builders import a_source, rows, rows_out, write_jsonl
from command import ENVIRONMENT, a_spec_file, batchrunner
from privilege import obeying_permissions, on_a_small_disk

HEAVY = ("ray", "pandas", "pyarrow", "s3fs", "numpy", "fsspec")


@pytest.fixture
def job(tmp_path):
    a_source(tmp_path / "in", shards=3)
    a_spec_file(tmp_path)
    return tmp_path


def loaded_by(*arguments, cwd):
    """The heavy modules that the command imports, and its CPU seconds."""
    code = (
        "import sys, resource\n"
        "from batchrunner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('measured:', used.ru_utime + used.ru_stime, *heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()[-1].split()
    return float(words[1]), words[2:]


COMMANDS = [
    "run",
    "plan",
    "validate",
    "errors",
    "retry",
    "status",
    "verify",
    "report",
    "clean",
    "runs",
    "jobs",
    "schema",
]
LIGHT = {"--help": 0.25, **{f"{one} --help": 0.25 for one in COMMANDS}, "validate spec.yaml": 0.5}


@pytest.mark.parametrize(("line", "seconds"), LIGHT.items())
def test_the_light_commands_start_at_once(job, line, seconds):
    """Measured in CPU seconds, so that a busy machine does not matter: the best of five."""
    measured = [loaded_by(*line.split(), cwd=job) for _ in range(5)]

    assert min(used for used, _ in measured) <= seconds
    assert all(heavy == [] for _, heavy in measured)


def test_a_run_says_what_it_did_and_where(job):
    """The result, the place, and nothing on stdout that is no data."""
    done = batchrunner("run", "spec.yaml", cwd=job)

    assert (done.returncode, done.stdout) == (0, "")
    assert "done: 3 of 3 shards committed (3 new" in done.stderr
    assert f"output: {job}/out" in done.stderr
    assert rows_out(job / "out") == rows(0, 12)


def test_a_run_reports_json(job):
    """For a program that calls it."""
    done = batchrunner("run", "spec.yaml", "-o", "json", cwd=job)

    report = json.loads(done.stdout)
    assert (report["ok"], report["rows_out"], report["shards_new"]) == (True, 12, 3)


def test_plan_lists_what_would_run_and_why_and_writes_nothing(job):
    """A look before the leap."""
    done = batchrunner("plan", "spec.yaml", "-o", "jsonl", cwd=job)

    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["shard"] for record in records] == [0, 1, 2]
    assert {record["why"] for record in records} == {"new run"}
    assert "3 of 3 shards to run" in done.stderr
    assert not (job / "out").exists()


def test_plan_knows_new_and_changed_files(job):
    """Why a shard runs is half of the plan."""
    batchrunner("run", "spec.yaml", cwd=job)
    write_jsonl(job / "in/in-001.jsonl", rows(70, 2))
    write_jsonl(job / "in/new.jsonl", rows(80, 2))

    done = batchrunner("plan", "spec.yaml", "-o", "csv", cwd=job)

    records = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(r["shard"], r["why"]) for r in records] == [
        ("3", "its file changed"),
        ("4", "its file is new"),
    ]


def test_run_plan_and_errors_give_the_same_way_out_of_a_quarantine(job):
    """A user who reads three lines for one state does not know which one to paste."""
    bad_rows(job)
    a_spec_file(job, errors={"on_row_error": "fail"})

    said = [
        batchrunner(command, "spec.yaml", cwd=job).stderr for command in ("run", "plan", "errors")
    ]

    for text in said:
        assert "fix it, then batchrunner retry spec.yaml\n" in text
    assert "0 of 3 shards to run, 2 committed\n1 is quarantined: fix it" in said[1]


def test_a_file_that_cannot_be_read_is_said_to_have_a_shard_of_its_own(job):
    """The plan promised one shard, and the run reports two."""
    a_spec_file(job, source={"uri": "in", "shard": {"files": 3}})
    (job / "in/in-001.jsonl").rename(job / "in/in-001.jsonl.gz")  # it is no gzip

    plan = batchrunner("plan", "spec.yaml", cwd=job)
    as_json = batchrunner("plan", "spec.yaml", "-o", "json", cwd=job)
    run = batchrunner("run", "spec.yaml", cwd=job)

    assert "/in/in-000.jsonl and 2 more  files" in plan.stdout
    assert json.loads(as_json.stdout)[0]["source"].endswith("/in/in-000.jsonl")
    said = "1 file has a shard of its own, since it cannot be read: the plan has 2 shards now"
    assert said in run.stderr
    assert "failed: 1 of 2 shards committed" in run.stderr


def test_status_needs_the_checkpoint_alone(job):
    """On any machine, long after, without source or sink."""
    batchrunner("run", "spec.yaml", cwd=job)
    shutil.move(job / "out/_checkpoint", job / "elsewhere")

    done = batchrunner("status", "elsewhere", "-o", "json", cwd=job)

    status = json.loads(done.stdout)
    assert (status["state"], status["committed"], status["rows_out"]) == ("complete", 3, 12)


def test_schema_prints_the_json_schema(tmp_path):
    """For editors."""
    schema = json.loads(batchrunner("schema", cwd=tmp_path).stdout)

    assert "source" in schema["properties"]


def bad_rows(job):
    (job / "in/in-001.jsonl").write_text('{"id": 1}\n{"id": \n')


def wrong_bucket(job):
    a_spec_file(job, sink="s3://no/such bucket/")


CASES = {
    "missing spec": (["run", "nope.yaml"], None, 2, "nope.yaml"),
    "no arguments": (["run"], None, 2, "SPEC"),
    "unknown command": (["fly"], None, 2, "fly"),
    "unknown key": (["run", "spec.yaml"], {"sinc": "out"}, 2, "did you mean"),
    "missing source": (["run", "spec.yaml"], {"source": "typo/*.jsonl"}, 3, "typo/*.jsonl"),
    "unreadable name": (
        ["run", "spec.yaml"],
        {"source": "spec.yaml"},
        2,
        "does not show its format",
    ),
    "missing module": (
        ["run", "spec.yaml"],
        {"capability": "nope.caps:up"},
        3,
        "no module 'nope.caps'",
    ),
    "missing function": (
        ["run", "spec.yaml"],
        {"capability": "capabilities:nope"},
        3,
        "defines no 'nope'",
    ),
    "broken import": (["run", "spec.yaml"], {"capability": "broken:up"}, 3, "ZeroDivisionError"),
    "missing import": (
        ["run", "spec.yaml"],
        {"capability": "needs_more:up"},
        3,
        "needs the module 'not_installed'",
    ),
    "no callable": (["run", "spec.yaml"], {"capability": "broken2:up"}, 3, "must be a function"),
    "unbuildable": (["run", "spec.yaml"], {"capability": "capabilities:Unbuildable"}, 3, "weights"),
    "sink is a file": (["run", "spec.yaml"], {"sink": "spec.yaml"}, 3, "spec.yaml"),
    "no Ray at the address": (
        ["run", "spec.yaml"],
        {"ray": {"address": "127.0.0.1:1"}, "execution": {"engine": "ray"}},
        3,
        "no Ray listens at ray.address",
    ),
    "Ray's client": (
        ["run", "spec.yaml"],
        {"ray": {"address": "ray://127.0.0.1:1"}, "execution": {"engine": "ray"}},
        3,
        "batchrunner jobs submit spec.yaml --address ray://127.0.0.1:1",
    ),
    "schema of lines": (
        ["run", "spec.yaml"],
        {"sink": {"uri": "out", "schema": {"id": "string"}}},
        2,
        "sink.schema: a schema needs the format parquet",
    ),
    "compression of lines": (
        ["validate", "spec.yaml"],
        {"source": "nowhere/*.jsonl", "sink": {"uri": "out", "compression": "gzip"}},
        2,
        "sink.compression: the format jsonl takes",
    ),
    "no run": (["status", "nowhere"], None, 3, "there is no run in"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_one_clear_message(job, case):
    """The thing, the fact, the way out; the right code; no traceback; nothing half-written."""
    arguments, changes, code, words = CASES[case]
    (job / "broken.py").write_text("def up(rows):\n    return rows\n1 / 0\n")
    (job / "broken2.py").write_text("up = 1\n")
    (job / "needs_more.py").write_text("import not_installed\ndef up(rows):\n    return rows\n")
    if changes is not None:
        a_spec_file(job, **changes)

    done = batchrunner(*arguments, cwd=job)

    assert words in done.stderr, done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert not list((job / "out").glob("part-*"))
    assert not (job / "out/_SUCCESS").exists()


def test_a_traceback_comes_with_v_only(job):
    """For a user who wants to see where."""
    (job / "broken.py").write_text("def up(rows):\n    return rows\n1 / 0\n")
    a_spec_file(job, capability="broken:up")

    assert "Traceback" in batchrunner("-v", "run", "spec.yaml", cwd=job).stderr


def test_a_bad_row_can_fail_its_shard_and_names_its_place(job):
    """The others are kept, the code is 1, and the message has the next command."""
    bad_rows(job)
    a_spec_file(job, errors={"on_row_error": "fail"})

    done = batchrunner("run", "spec.yaml", cwd=job)

    assert done.returncode == 1
    assert "in-001.jsonl, byte 10: Expecting value" in done.stderr
    assert "2 of 3 shards committed" in done.stderr
    assert "next: fix it, then batchrunner retry spec.yaml" in done.stderr


def test_too_many_dead_letters_are_reported_with_the_ways_out(job):
    """All shards are committed and kept, and the code is 1 nevertheless."""
    bad_rows(job)

    done = batchrunner("run", "spec.yaml", cwd=job)

    assert done.returncode == 1
    assert "3 of 3 shards committed" in done.stderr
    assert "too many rows failed: 1 of 10, where errors.max_row_errors allows 0" in done.stderr
    assert "batchrunner errors spec.yaml" in done.stderr
    assert not (job / "out/_SUCCESS").exists()
    status = batchrunner("status", "spec.yaml", "-o", "json", cwd=job)
    assert json.loads(status.stdout)["state"] == "failed"


def test_a_changed_spec_is_refused_with_code_4(job):
    """Nothing was touched, and the ways out are named."""
    batchrunner("run", "spec.yaml", cwd=job)
    a_spec_file(job, capability="capabilities:double")

    done = batchrunner("run", "spec.yaml", cwd=job)

    assert done.returncode == 4
    assert 'capability.target: "capabilities:echo" -> "capabilities:double"' in done.stderr
    assert "--accept-changes" in done.stderr


@pytest.mark.parametrize(("place", "mode"), [("in", 0o000), ("out", 0o555)])
def test_a_folder_without_permission_is_named(job, place, mode):
    """Found before any work is done."""
    folder = job / place
    folder.mkdir(exist_ok=True)
    folder.chmod(mode)

    done = run_as(obeying_permissions, job)

    assert done.returncode == 3, done.stderr
    assert str(folder) in done.stderr
    assert "ermission" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_named_and_the_run_goes_on_later(job):
    """Nothing half-written is taken for whole, and what fits is kept."""
    write_jsonl(job / "in/in-001.jsonl", rows(4, 20_000))
    (job / "out").mkdir()

    done = run_as(lambda command: on_a_small_disk(command, str(job / "out"), kilobytes=300), job)

    assert done.returncode in (1, 3), done.stderr
    assert "no space left" in done.stderr.lower()
    assert str(job / "out") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_limit_on_the_size_of_files_fails_its_shard_only(job):
    """A quota: shards below it are kept, the others go through once it is gone."""
    write_jsonl(job / "in/in-001.jsonl", rows(4, 2000))

    done = run_as(lambda command: ["sh", "-c", 'ulimit -f 64 && exec "$@"', "sh", *command], job)

    assert done.returncode == 3, done.stderr
    assert "2 of 3 shards committed" in done.stderr
    assert "limit for the size of a file" in done.stderr
    assert batchrunner("run", "spec.yaml", cwd=job).returncode == 0
    assert rows_out(job / "out") == [*rows(0, 4), *rows(4, 2000), *rows(8, 4)]


def run_as(wrapped, job):
    command = wrapped([sys.executable, "-m", "batchrunner", "run", "spec.yaml"])
    return subprocess.run(
        command, cwd=job, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )


@pytest.mark.s3
def test_a_checkpoint_in_a_bucket_is_read_without_its_spec(job, seaweedfs, prefix):
    """With its URI and the options alone: on the command line, or where `ps` does not show them."""
    options = {**seaweedfs.storage_options, "anon": False}
    sink = f"s3://{seaweedfs.bucket}/{prefix}"
    a_spec_file(job, sink={"uri": sink, "storage_options": options})
    assert batchrunner("run", "spec.yaml", cwd=job).returncode == 0
    given, kept = json.dumps(options), {"BATCHRUNNER_STORAGE_OPTIONS": json.dumps(options)}

    for command in ("status", "errors", "clean"):
        place = f"{sink}/_checkpoint"
        said = batchrunner(command, place, "-o", "json", "--storage-options", given, cwd=job)
        same = batchrunner(command, place, "-o", "json", cwd=job, **kept)

        assert (said.returncode, same.returncode) == (0, 0), said.stderr
        assert said.stdout == same.stdout


def test_the_logs_are_pointed_out_only_where_there_are_some(tmp_path):
    """Pasted after each run with a failed row, that line printed nothing."""
    a_source(tmp_path / "in")
    silent, noisy = (
        "def cap(rows):\n    raise ValueError",
        "def cap(rows):\n    print(1)\n    raise ValueError",
    )
    said = {}
    for name, code in (("silent", silent), ("noisy", noisy)):
        (tmp_path / f"{name}.py").write_text(code)
        a_spec_file(tmp_path, capability=f"{name}:cap", sink=name)
        said[name] = batchrunner("run", "spec.yaml", cwd=tmp_path).stderr

    assert "batchrunner errors" in said["silent"]
    assert "batchrunner logs" not in said["silent"]
    assert "batchrunner logs" in said["noisy"]
