"""Whatever a person looks at, the numbers are the same: no view counts for itself."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from builders import rows, write_jsonl
from command import a_spec_file, batchrunner, start
from patience import PATIENCE

FILES, ROWS, BAD = 6, 10, 2
ENGINES = pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])


def a_job(folder, engine):
    """Six files with two bad rows each, and a compressed one that was cut short on its way."""
    for number in range(FILES):
        write_jsonl(folder / f"in/{number}.jsonl", with_bad_ones(number))
    (folder / "in/6.jsonl.gz").write_bytes(compressed(FILES)[:-20])
    return a_spec_file(
        folder,
        name="job",
        capability={
            "target": "capabilities:slows_down_and_raises_on_bad",
            "fn_kwargs": {"path": str(folder / "go")},
        },
        execution={"engine": engine, "batch_size": 4},
        errors={"max_row_errors": 0.5},
        analytics_store={"uri": str(folder / "store")},
    )


def with_bad_ones(number):
    return [{**row, "bad": n < BAD} for n, row in enumerate(rows(number * ROWS, ROWS))]


def compressed(number):
    lines = "".join(json.dumps(row) + "\n" for row in with_bad_ones(number))
    return gzip.compress(lines.encode())


def killed_after_two_shards(folder):
    with start("run", "spec.yaml", cwd=folder, group=True) as process:
        deadline = time.monotonic() + PATIENCE
        while len(list(folder.glob("out/_checkpoint/sentinels/*"))) < 2:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.communicate()


def session_of(folder):
    """Run the spec; return its exit code and what its last `progress` event says."""
    done = batchrunner("run", "spec.yaml", "--progress", "json", cwd=folder)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    last = [event for event in events if event["event"] == "progress"][-1]
    counts = {name: last[name] for name in ("rows_in", "rows_out", "rows_failed")}
    return done.returncode, {**counts, "shards": last["shards"], "done": last["committed"]}


def printed(folder, *command, **environment):
    done = batchrunner(*command, "-o", "json", cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def of_status(folder):
    status = printed(folder, "status", "spec.yaml")
    counts = {name: status[name] for name in ("rows_in", "rows_out", "rows_failed")}
    return {**counts, "shards": status["shards"], "done": status["committed"]}


def of_report(folder):
    report = printed(folder, "report", "spec.yaml")
    counts = {name: report["totals"][name] for name in ("rows_in", "rows_out", "rows_failed")}
    done = report["shards_by_state"]["now"] + report["shards_by_state"]["before"]
    assert report["dead_letters"]["rows"] == counts["rows_failed"]
    return {**counts, "shards": report["totals"]["shards"], "done": done}


def lines_in(folder, pattern):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(pattern))


def of_manifest(folder):
    manifest = json.loads((folder / "out/_manifest.json").read_text())
    assert sum(part["rows"] for part in manifest["parts"]) == manifest["rows_out"]
    counts = {name: manifest[name] for name in ("rows_in", "rows_out", "rows_failed")}
    return {**counts, "shards": len(manifest["parts"]), "done": len(manifest["parts"])}


def of_store(folder):
    sql = "SELECT rows_in, rows_out, rows_failed, shards FROM batch_runs"
    [record] = printed(folder, "runs", "query", sql, BATCHRUNNER_STORE=str(folder / "store"))
    return {**record, "done": record["shards"]}


@ENGINES
def test_every_view_of_a_run_shows_the_same_numbers(tmp_path, engine):
    """A run that was killed, went on, failed in part, was mended and ended."""
    a_job(tmp_path, engine)
    killed_after_two_shards(tmp_path)
    (tmp_path / "go").touch()

    code, live = session_of(tmp_path)
    failing = {"rows_in": 60, "rows_out": 48, "rows_failed": 12, "shards": 7, "done": 6}
    assert code == 1
    assert live == of_status(tmp_path) == of_report(tmp_path) == failing
    assert lines_in(tmp_path, "out/part-*") == live["rows_out"]

    (tmp_path / "in/6.jsonl.gz").write_bytes(compressed(FILES))
    code, live = session_of(tmp_path)
    whole = {"rows_in": 70, "rows_out": 56, "rows_failed": 14, "shards": 7, "done": 7}
    assert code == 0
    assert live == of_status(tmp_path) == of_report(tmp_path) == whole
    assert live == of_manifest(tmp_path) == of_store(tmp_path)
    assert lines_in(tmp_path, "out/part-*") == live["rows_out"]
    assert lines_in(tmp_path, "out/_checkpoint/errors/*.jsonl") == live["rows_failed"]
