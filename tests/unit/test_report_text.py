"""What a report says in words: on the command line, in Python and in a notebook."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchrunner.driver import report_text
from batchrunner.driver.report import BatchReport
from batchrunner.driver.session import StopReason
from batchrunner.worker.receipt import Cause, Failure

DONE = BatchReport(
    run_uid="u",
    name="batch",
    sink="out",
    checkpoint="out/_checkpoint",
    shards=10,
    shards_committed=10,
    shards_new=7,
    rows_in=100,
    rows_out=100,
    rows_failed=0,
    rows_allowed=1,
    bytes_out=5,
    seconds=8.2,
    failures={},
    quarantined={},
)
BROKEN = replace(
    DONE,
    shards_committed=0,
    rows_in=0,
    rows_out=0,
    failures={0: Failure(Cause.CAPABILITY, "shard 0: ValueError: no")},
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "done: 10 of 10 shards committed (7 new, 8s)"),
        ({"shards_adopted": 3}, "done: 10 of 10 shards committed (7 new, 3 adopted, 8s)"),
        (
            {"rows_failed": 2, "stopped": StopReason.ROW_ERRORS},
            "failed: 10 of 10 shards committed, but too many rows failed (7 new, 8s)",
        ),
        (
            {"shards_committed": 9, "stopped": StopReason.MAX_RUNTIME},
            "stopped (max_runtime): 9 of 10 shards committed (7 new, 8s)",
        ),
    ],
)
def test_the_first_line_says_how_it_ended_and_its_numbers_add_up(changes, said):
    """23 were committed before the kill and 34 after it, of 60: three had been taken over."""
    assert report_text.heading(replace(DONE, **changes)) == said


def test_a_run_with_too_many_failed_rows_keeps_its_exit_code():
    report = replace(DONE, rows_failed=2, stopped=StopReason.ROW_ERRORS)

    assert report.exit_code == 1


def test_rows_of_shards_that_failed_are_said_to_be_left_out():
    """`0 in, 0 out, 0 failed` stood below `1 failed` when every row had failed."""
    said = "0 in, 0 out, 0 failed; not counted: those of 1 failed shard"

    assert report_text.rows(BROKEN) == said
    assert report_text.rows(DONE) == "100 in, 100 out, 0 failed"


def test_a_printed_report_is_a_few_lines_with_the_first_error_and_the_next_command():
    assert str(BROKEN).splitlines() == [
        "failed: 0 of 10 shards committed (7 new, 8s)",
        "rows: 0 in, 0 out, 0 failed; not counted: those of 1 failed shard",
        "output: out",
        "failed: shard 0: ValueError: no",
        "next: batchrunner errors out/_checkpoint",
    ]
    assert "next:" not in str(DONE)
    assert "speed:" not in str(DONE)
    slow = replace(DONE, advice="embed is busy 99 % of its time: raise its concurrency")
    assert str(slow).splitlines()[-1] == f"speed: {slow.advice}"
    assert slow.advice in slow._repr_html_()
    assert str(replace(DONE, shards_committed=3)).endswith(
        "next: run it again: what is committed stays"
    )
    assert "\\x1b[2J" in str(replace(DONE, sink="\x1b[2J"))


def test_a_notebook_shows_the_first_error_and_the_line_to_paste():
    shown = BROKEN._repr_html_()

    assert "shard 0: ValueError: no" in shown
    assert "batchrunner errors out/_checkpoint" in shown
