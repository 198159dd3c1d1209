"""`batchrunner report` on real runs: killed, resumed, failed, running, far away."""

from __future__ import annotations

import json
import shlex

import pytest

from batchrunner.analytics import CompletedRun, open_store
from buckets import Bucket
from builders import rows, rows_out, write_jsonl
from command import a_spec_file, batchrunner, start
from evaluations import Score

pytestmark = pytest.mark.long

ROWS = 120
BAD = (117, 163, 201)


@pytest.fixture
def job(tmp_path):
    """A row in each of 120 shards, of which three fail; its process dies at rows 150 and 190, once each."""
    for row in rows(100, ROWS):  # ids of as many digits: shards are taken in their order
        bad = {"bad": True} if row["id"] in BAD else {"mad": True}
        write_jsonl(tmp_path / f"in/in-{row['id']}.jsonl", [{**row, **bad}])
    deadly = {
        "target": "failing:deadly_once",
        "fn_kwargs": {"folder": str(tmp_path), "at": [150, 190]},
    }
    source = {"uri": "in", "shard": {"files": 1}}
    errors = {"max_row_errors": 5}
    a_spec_file(tmp_path, name="nightly", source=source, capability=deadly, errors=errors)
    return tmp_path


def values(job, *place):
    return json.loads(
        batchrunner("report", *(place or ["spec.yaml"]), "-o", "json", cwd=job).stdout
    )


def test_the_numbers_are_the_same_everywhere_after_two_deaths_and_three_failures(job):
    """Report, status, manifest, the report of the session and a count of the sink's rows."""
    codes = [batchrunner("run", "spec.yaml", "-o", "json", cwd=job) for _ in range(3)]
    assert [done.returncode for done in codes] == [-9, -9, 0], [done.stderr for done in codes]

    report = values(job)

    status = json.loads(batchrunner("status", "spec.yaml", "-o", "json", cwd=job).stdout)
    manifest = json.loads((job / "out/_manifest.json").read_bytes())
    session = json.loads(codes[2].stdout)
    for name in ("rows_in", "rows_out", "rows_failed"):
        each = {report["totals"][name], status[name], manifest[name], session[name]}
        assert len(each) == 1, name
        assert sum(one[name] for one in report["sessions"]) == report["totals"][name]
    assert report["totals"]["rows_in"] == ROWS
    assert report["totals"]["rows_failed"] == len(BAD) == report["dead_letters"]["rows"]
    assert report["totals"]["rows_out"] == len(rows_out(job / "out")) == ROWS - len(BAD)
    assert [one["end"] for one in report["sessions"]] == ["killed", "killed", "complete"]
    assert report["verdict"]["state"] == status["state"] == "complete"


def test_a_dead_run_has_a_report_that_says_how_to_go_on(job):
    """The next thing that the user pastes."""
    assert batchrunner("run", "spec.yaml", cwd=job).returncode == -9

    done = batchrunner("report", "spec.yaml", cwd=job)

    assert done.returncode == 0, done.stderr
    assert "report: nightly-report.html (" in done.stderr
    assert "Killed:" in done.stderr
    assert done.stdout == ""
    html = (job / "nightly-report.html").read_text()
    assert "batchrunner run spec.yaml" in html
    assert [path.name for path in job.glob("*report*")] == ["nightly-report.html"]
    assert values(job)["verdict"]["state"] == "interrupted"


def test_it_needs_neither_source_nor_sink_nor_the_code(job):
    """Only the checkpoint is left, copied to another folder; the rest is gone."""
    batchrunner("run", "spec.yaml", cwd=job)
    (job / "out/_checkpoint").rename(job / "kept")
    for part in (job / "out").glob("part-*"):
        part.unlink()
    (job / "spec.yaml").unlink()

    report = values(job, "kept")

    assert report["verdict"]["state"] == "interrupted"
    assert report["totals"]["rows_out"] > 0


def test_a_checkpoint_alone_gives_lines_to_paste(tmp_path):
    """The session noted which spec it was started with, where; a trial leaves no such note."""
    write_jsonl(tmp_path / "in/in.jsonl", rows(0, 4))
    a_spec_file(tmp_path, tags={"for": "Ada"})
    assert batchrunner("run", "spec.yaml", "--set", "tags.at=home", cwd=tmp_path).returncode == 0
    assert batchrunner("run", "spec.yaml", "--limit", "2", cwd=tmp_path).returncode == 0

    whole = values(tmp_path, "out/_checkpoint")
    trial = values(tmp_path, next(str(p) for p in tmp_path.glob("_trial*/_checkpoint")))

    folder = shlex.quote(str(tmp_path))
    line = f"cd {folder} && batchrunner verify spec.yaml --set tags.at=home"
    assert whole["verdict"]["steps"][0]["command"] == line
    assert whole["started_with"] == {
        "spec": "spec.yaml --set tags.at=home",
        "folder": str(tmp_path),
    }
    assert trial["verdict"]["steps"][0]["command"] == "batchrunner verify SPEC"


def test_a_report_changes_nothing(job):
    """It may be made beside a driver, and by a user who may only read."""
    batchrunner("run", "spec.yaml", cwd=job)
    before = {p: p.stat().st_mtime_ns for p in (job / "out").rglob("*")}

    values(job)

    assert {p: p.stat().st_mtime_ns for p in (job / "out").rglob("*")} == before


def test_a_running_run_says_so(job):
    """While the driver is at it."""
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": str(job / "go")}}
    a_spec_file(job, capability=waits)
    driver = start("run", "spec.yaml", cwd=job)
    try:
        while not (job / "out/_checkpoint/plan/0000.parquet").exists():
            assert driver.poll() is None
        report = values(job)
    finally:
        (job / "go").touch()
        driver.communicate()

    assert report["verdict"]["state"] == "running"
    assert report["verdict"]["steps"][0]["command"] == "batchrunner status --watch spec.yaml"


@pytest.mark.parametrize("place", ["nowhere", "in"])
def test_a_place_without_a_run_is_refused_in_one_line(job, place):
    """And no empty page is left behind."""
    done = batchrunner("report", place, cwd=job)

    assert done.returncode == 3
    assert "there is no run in" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(job.glob("*.html"))


def test_a_file_that_cannot_be_written_is_named(job):
    """With the way out, and without a traceback."""
    batchrunner("run", "spec.yaml", cwd=job)

    done = batchrunner("report", "spec.yaml", "-O", "no/such/folder.html", cwd=job)

    assert done.returncode == 2
    assert "no/such/folder.html cannot be written" in done.stderr
    assert "--file" in done.stderr


def test_html_and_json_go_where_they_are_sent(job):
    """`-` is stdout, for a pipe into a mail."""
    batchrunner("run", "spec.yaml", cwd=job)

    html = batchrunner("report", "spec.yaml", "-O", "-", cwd=job).stdout
    batchrunner("report", "spec.yaml", "-o", "json", "--file", "report.json", cwd=job)

    assert html.startswith("<!doctype html>")
    assert html.endswith("</html>\n")
    assert json.loads((job / "report.json").read_bytes())["name"] == "nightly"


def test_a_run_in_a_bucket_has_a_report(tmp_path, moto, prefix):
    """By its spec, and by the URI of its checkpoint."""
    bucket = Bucket(moto, prefix)
    write_jsonl(tmp_path / "in/in.jsonl", rows(0, 4))
    sink = {"uri": bucket.uri, "storage_options": bucket.storage_options}
    a_spec_file(tmp_path, sink=sink)
    assert batchrunner("run", "spec.yaml", cwd=tmp_path).returncode == 0

    by_spec = values(tmp_path)
    options = json.dumps(bucket.storage_options)
    uri = f"{bucket.uri}/_checkpoint"
    by_uri = values(tmp_path, uri, "--storage-options", options)

    assert by_spec["totals"] == by_uri["totals"]
    assert by_uri["totals"]["rows_out"] == 4


def test_a_secret_of_the_spec_is_not_in_the_report(job):
    """It is mailed around."""
    key = "sk-abcdefghijklmnop"
    quotes = {"target": "failing:tells_its_secret", "fn_kwargs": {"api_key": key}}
    a_spec_file(job, capability=quotes, errors={"max_row_errors": 5})
    batchrunner("run", "spec.yaml", cwd=job)

    html = batchrunner("report", "spec.yaml", "-O", "-", cwd=job).stdout

    assert "401 for ***" in html
    assert key not in html
    assert key not in json.dumps(values(job))


def test_recorded_runs_are_compared_in_one_file(tmp_path):
    """Those that are named, or the latest of the capability that ran last."""
    store = open_store(str(tmp_path / "store"))
    for number, capability in enumerate(["other", "evaluate", "evaluate"]):
        uid = f"run-{number}"
        store.write(
            [CompletedRun(uid, capability, records=[Score(run_uid=uid, value=0.5 + number)])]
        )

    done = batchrunner("runs", "report", "--store", "store", cwd=tmp_path)
    named = ("run-1", "run-2", "--store", "store", "-o", "json")
    values = json.loads(batchrunner("runs", "report", *named, cwd=tmp_path).stdout)

    assert done.returncode == 0, done.stderr
    assert "2 runs of evaluate; 1 value of their records differs." in (
        tmp_path / "runs-report.html"
    ).read_text("utf-8")
    assert [one["values"] for one in values["differences"]] == [[1.5, 2.5]]
