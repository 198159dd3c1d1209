"""What the terminal says of code that fails, and what it says when there is nothing to report."""

from __future__ import annotations

import json

from builders import rows, write_jsonl
from command import a_spec_file, batchrunner

CODE = 'def f(rows):\n    return [{"n": len(r["txt"])} for r in rows]\n'


def test_a_misspelt_column_is_reported_with_its_line_a_row_and_the_next_commands(tmp_path):
    """In the report itself; with `-v` its traceback, and in `errors` each row that was tried."""
    (tmp_path / "caps.py").write_text(CODE)
    write_jsonl(tmp_path / "in/a.jsonl", rows(0, 5000))
    a_spec_file(tmp_path, capability="caps:f")

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    place = f"{tmp_path}/caps.py:2"
    assert done.returncode == 1
    assert f"KeyError: 'txt' (at {place}), 3 of 3 rows tried alone; one of them: {{" in done.stderr
    assert "Traceback" not in done.stderr
    assert "see the rows that failed: batchrunner errors spec.yaml" in done.stderr

    verbose = batchrunner("-v", "run", "spec.yaml", cwd=tmp_path)
    assert f'\nTraceback (most recent call last):\n  File "{tmp_path}/caps.py"' in verbose.stderr
    assert "/batchrunner/worker" not in verbose.stderr

    table = batchrunner("errors", "spec.yaml", cwd=tmp_path)
    assert f"KeyError  3     1 failed  'txt' (at {place})" in table.stdout
    lines = batchrunner("errors", "--rows", "-o", "jsonl", "spec.yaml", cwd=tmp_path).stdout
    dead_letters = [json.loads(line) for line in lines.splitlines()]
    assert [(one["code"], one["shard_failed"]) for one in dead_letters] == [(place, True)] * 3


def test_errors_says_so_when_there_are_none(tmp_path):
    """An empty answer looks like a mistake."""
    write_jsonl(tmp_path / "in/a.jsonl", rows(0, 3))
    a_spec_file(tmp_path)
    assert batchrunner("run", "spec.yaml", cwd=tmp_path).returncode == 0

    listed = batchrunner("errors", "spec.yaml", cwd=tmp_path)

    assert (listed.returncode, listed.stdout, listed.stderr) == (0, "", "no row failed\n")
