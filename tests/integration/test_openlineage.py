"""The hook `openlineage`: what it emits is what the standard asks for, and equals the report."""

from __future__ import annotations

import uuid
from datetime import datetime

import jsonschema
import pytest

from batchrunner import BatchRunner
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import InvalidSpecError
from batchrunner.hooks.openlineage import dataset_name
from builders import a_source, a_spec
from receiver import a_receiver

FACET = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {
        "_producer": {"type": "string", "format": "uri"},
        "_schemaURL": {
            "type": "string",
            "pattern": r"^https://openlineage\.io/spec/.+\.json#/\$defs/",
        },
    },
}
FACETS = {"type": "object", "additionalProperties": FACET}
COUNTS = {
    "properties": {
        name: {"type": "integer", "minimum": 0} for name in ("rowCount", "size", "fileCount")
    }
}
DATASET = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {
        "facets": FACETS,
        "inputFacets": {**FACETS, "properties": {"inputStatistics": COUNTS}},
        "outputFacets": {**FACETS, "properties": {"outputStatistics": COUNTS}},
    },
}
EVENT = {
    "type": "object",
    "required": ["eventType", "eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "FAIL", "ABORT", "OTHER"]},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {
            "pattern": r"^https://openlineage\.io/spec/2-.+/OpenLineage\.json#/\$defs/RunEvent$"
        },
        "run": {"required": ["runId"], "properties": {"facets": FACETS}},
        "job": {"required": ["namespace", "name"], "properties": {"facets": FACETS}},
        "inputs": {"type": "array", "items": DATASET},
        "outputs": {"type": "array", "items": DATASET},
    },
}
"""What the standard asks of a run event, as far as this hook uses it."""


def emitted(receiver):
    """The events that the server got, each held against the standard."""
    events = [event for _, _, event in receiver.posts]
    for event in events:
        jsonschema.validate(event, EVENT)
        uuid.UUID(event["run"]["runId"])
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    return events


def a_runner(folder, receiver, *, capability=None, **changes):
    a_source(folder / "in")
    hooks = {"openlineage": {"url": receiver.url, "namespace": "nightly", "api_key": "api-key-1"}}
    return BatchRunner(a_spec(folder, hooks=hooks, **changes), capability=capability)


def fails(rows):
    raise ValueError("no such word")


def test_a_run_is_emitted_from_start_to_complete(tmp_path):
    """The lineage has the rows, bytes, parts and columns that the report has."""
    with a_receiver() as receiver:
        sink = {"uri": str(tmp_path / "out"), "format": "parquet"}
        report = a_runner(tmp_path, receiver, sink=sink).run()
        start, complete = emitted(receiver)
        path, headers, _ = receiver.posts[0]

    assert (path, headers["Authorization"]) == ("/api/v1/lineage", "Bearer api-key-1")
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert {e["run"]["runId"].replace("-", "") for e in (start, complete)} == {report.run_uid}
    assert (start["job"]["namespace"], start["job"]["name"]) == ("nightly", "test")
    (source,), (output,) = complete["inputs"], complete["outputs"]
    assert (source["namespace"], source["name"]) == ("file", str(tmp_path / "in"))
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == report.rows_in
    statistics = output["outputFacets"]["outputStatistics"]
    counts = [statistics[name] for name in ("rowCount", "size", "fileCount")]
    assert counts == [report.rows_out, report.bytes_out, report.shards]
    columns = {field["name"]: field["type"] for field in output["facets"]["schema"]["fields"]}
    assert columns == {"id": "int64", "text": "string"}


def test_a_run_that_failed_is_emitted_with_its_error(tmp_path):
    """FAIL is for a person to act on."""
    errors = {"retry": {"max_attempts": 1}}
    with a_receiver() as receiver:
        report = a_runner(tmp_path, receiver, capability=fails, errors=errors).run()
        _, fail = emitted(receiver)

    assert not report.ok
    assert fail["eventType"] == "FAIL"
    assert "no such word" in fail["run"]["facets"]["errorMessage"]["message"]


def test_a_run_that_was_stopped_goes_on_under_the_same_id(tmp_path):
    """ABORT is no failure: the next session of the run begins with START."""
    stop = Stop(max_runtime=None)

    def stops(rows):
        stop.request(StopReason.TERMINATED)
        return rows

    with a_receiver() as receiver:
        a_runner(
            tmp_path,
            receiver,
            capability=stops,
            source={"uri": str(tmp_path / "in"), "shard": {"files": 1}},
        ).run(stop=stop)
        a_runner(tmp_path, receiver, capability=stops).run(accept_changes=True)
        events = emitted(receiver)

    assert [event["eventType"] for event in events] == ["START", "ABORT", "START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in events}) == 1


def test_a_server_that_fails_at_first_gets_each_event(tmp_path):
    """A restart of the lineage server loses no run."""
    with a_receiver(503, "reset", 429) as receiver:
        a_runner(tmp_path, receiver).run()
        events = emitted(receiver)

    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/in", ("file", "/data/in")),
        ("s3://bucket/a/b", ("s3://bucket", "a/b")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_datasets_are_named_as_other_tools_name_them(uri, name):
    """Else the lineage of two tools does not meet."""
    assert dataset_name(uri) == name


def test_validate_finds_a_server_that_is_no_url(tmp_path):
    """Before the run."""
    with pytest.raises(InvalidSpecError, match="openlineage: url must begin with"):
        a_spec(tmp_path, hooks={"openlineage": {"url": "lineage:5000"}})
