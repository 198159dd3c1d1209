"""`batchrunner runs`: what a person or a script asks the analytics store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchrunner.analytics import CompletedRun, open_store
from batchrunner.analytics.layout import file_key, stem_of
from batchrunner.testing.analytics_contract import a_run
from command import batchrunner


@pytest.fixture
def store(tmp_path):
    """Three runs, one of them with another value."""
    kept = open_store(tmp_path / "store")
    kept.write([a_run("one", scores=1), a_run("two", scores=1, value=2.5)])
    kept.write([a_run("three", scores=1)])
    return kept


def runs(store, *arguments, **environment):
    """Run the command with the store named by the environment."""
    return batchrunner("runs", *arguments, cwd="/", BATCHRUNNER_STORE=store.uri, **environment)


def printed(store, *arguments):
    done = runs(store, *arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_latest_runs_are_listed_first(store):
    """That is what one looks for."""
    found = printed(store, "list", "--limit", "1")

    assert [run["run_uid"] for run in found] == ["three"]
    assert (found[0]["datasets"], found[0]["models"]) == (["cifar", "mnist"], ["resnet"])
    assert printed(store, "list", "--entity", "imagenet") == []


def test_a_run_is_shown_with_its_records(store):
    """By its name or by its address."""
    for name in ("two", store.get_run_uri("two")):
        found = printed(store, "show", name)
        assert (found["run_uid"], found["records"]["score"][0]["value"]) == ("two", 2.5)
    assert "resnet" in runs(store, "show", "two").stdout


def test_a_run_whose_records_are_torn_is_not_shown_without_them(store):
    """With the file and the way out: an empty table of records would be believed."""
    torn = Path(store.uri) / file_key("score", stem_of(["two"]))
    torn.write_bytes(torn.read_bytes()[:50])

    shown = runs(store, "show", "two")

    assert (shown.returncode, shown.stdout) == (3, "")
    assert str(torn) in shown.stderr
    assert "record the run again" in shown.stderr


def test_a_run_that_made_a_report_is_shown_with_its_place(store):
    """Others are shown with none."""
    store.write([CompletedRun("reported", "tests.Capability", report="# text")])

    assert printed(store, "show", "reported")["report_uri"] == store.report_uri("reported")
    assert printed(store, "show", "one")["report_uri"] is None


def test_two_runs_are_compared_by_what_differs(store):
    """And by how much."""
    (found,) = printed(store, "compare", "one", "two")

    assert (found["column"], found["first"], found["second"]) == ("value", 1.0, 2.5)
    assert found["change"] == 1.5
    assert printed(store, "compare", "one", "three") == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("json", '[\n  {\n    "n": 3,\n    "v": 4.5\n  }\n]\n'),
        ("jsonl", '{"n": 3, "v": 4.5}\n'),
        ("csv", "n,v\r\n3,4.5\r\n"),
        ("table", "n  v\n3  4.5\n"),
    ],
)
def test_sql_is_answered_in_the_form_asked_for(store, output, expected):
    """Data on stdout, and nothing else there."""
    done = runs(store, "query", "SELECT count(*) AS n, sum(value) AS v FROM score", "-o", output)

    assert done.stdout.replace("\n", "\r\n" if output == "csv" else "\n") == expected
    assert done.returncode == 0


def test_tables_and_their_columns_are_listed(store):
    """For authors of SQL."""
    assert [row["table"] for row in printed(store, "tables")] == ["runs", "score"]
    assert {"column": "value", "type": "double"} in printed(store, "tables", "score")


def test_a_store_is_compacted(store):
    """And is the same afterwards."""
    done = printed(store, "compact", "--clear")
    assert (done["replaced"], done["created"], done["deleted"]) == (6, 2, 6)
    assert len(printed(store, "list")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nope"], "no run 'nope'"),
        (["tables", "nope"], "it has: runs, score"),
        (["query", "DELETE FROM runs"], "SELECT"),
        (["query", "PIVOT score ON value USING count(*)"], "SELECT * FROM table PIVOT (sum(value)"),
        (["compare", "one", "two", "--on", "vlaue"], "they have: created_at, run_uid, value"),
        (["list", "--store", "/nowhere"], "there is no analytics store"),
        (["list", "--storage-options", "hunter2"], "write a JSON object"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(store, arguments, said):
    """Exit code 2: the command line is to be changed."""
    done = runs(store, *arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_must_be_named(tmp_path):
    """None is guessed."""
    done = batchrunner("runs", "list", cwd=tmp_path)

    assert done.returncode == 2
    assert "BATCHRUNNER_STORE" in done.stderr


@pytest.mark.s3
def test_a_store_in_a_bucket_is_read_with_options_from_the_environment(seaweedfs, prefix):
    """Key, secret and endpoint are given there and nowhere else."""
    options = {**seaweedfs.storage_options, "anon": False}
    kept = open_store(f"s3://{seaweedfs.bucket}/{prefix}", storage_options=options)
    kept.write([a_run("one")])

    done = runs(kept, "list", "-o", "json", BATCHRUNNER_STORAGE_OPTIONS=json.dumps(options))

    assert [run["run_uid"] for run in json.loads(done.stdout)] == ["one"]


def test_help_loads_nothing_heavy(tmp_path):
    """It is read by people who wait."""
    done = batchrunner("runs", "--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not {"pyarrow", "duckdb", "pydantic"} & loaded
