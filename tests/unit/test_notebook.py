"""What a notebook shows: one line that is updated, and tables of reports, plans and jobs."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from types import ModuleType, SimpleNamespace

import pytest

from batchrunner import BatchRunner
from batchrunner.driver.progress import Phase, Progress
from batchrunner.jobs.job import Job, JobList, JobState
from batchrunner.jobs.outcome import JobStatus, Outcome
from batchrunner.views.displays import display_of
from batchrunner.views.line_display import LineDisplay
from builders import a_source, a_spec

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def notebook(monkeypatch):
    """IPython as the kernel of a notebook has it, as far as we call it; returns what is displayed."""
    shown = []

    class Handle:
        def update(self, data, *, raw):
            shown[-1].append(data["text/plain"])

    def display(data, *, raw, display_id):
        shown.append([data["text/plain"]])
        return Handle()

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


class Tags(HTMLParser):
    """Collects the tags and attributes of HTML, and what a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def is_harmless(html):
    seen = Tags(html)
    assert seen.tags <= {"div", "strong", "table", "tbody", "tr", "th", "td"}
    assert seen.attributes <= {"style"}
    assert "color" not in html.replace("colour", "")  # that of the page, light or dark
    return seen.text


def test_a_notebook_has_one_line_that_is_updated(notebook):
    """A line a second would fill the page of a run of an hour."""
    display = display_of("auto")
    begun = Progress.before_the_survey()
    for phase in (Phase.SURVEYING, Phase.RUNNING, Phase.FINISHING):
        for _ in range(50):
            display.show(replace(begun, phase=phase))
    display.close()

    (line,) = notebook
    assert [text.partition(",")[0] for text in line][:1] == ["reading source and checkpoint"]
    assert line[-1].startswith("finishing")
    assert len(line) < 10


def test_a_terminal_of_ipython_is_no_notebook(notebook):
    """It has no page to update."""
    sys.modules["IPython"].get_ipython = SimpleNamespace

    assert isinstance(display_of("auto"), LineDisplay)


def test_a_report_is_a_table_that_runs_nothing(tmp_path):
    """Names and errors come from strangers, and a notebook runs what it is given."""
    a_source(tmp_path / "in")
    report = BatchRunner(a_spec(tmp_path)).run(progress="off")
    failed = replace(report, name=HOSTILE, shards_committed=2, quarantined={1: HOSTILE})

    assert "3 of 3 shards committed (3 new, " in is_harmless(report._repr_html_())
    text = is_harmless(failed._repr_html_())
    assert text.count(HOSTILE) == 2
    assert "2 of 3 shards committed" in text


def test_the_report_of_a_run_is_a_table_and_a_few_lines(tmp_path):
    """`runner.report()` in a cell was the list of all its fields; the page is in `to_html`."""
    a_source(tmp_path / "in")
    runner = BatchRunner(a_spec(tmp_path))
    runner.run(progress="off")

    report = runner.report()

    text = is_harmless(report._repr_html_())
    hostile = replace(report, name=HOSTILE, verdict=replace(report.verdict, happened=HOSTILE))
    assert is_harmless(hostile._repr_html_()).count(HOSTILE) == 2
    assert "3 of 3 committed" in text
    assert "12 in, 12 out, 0 failed" in text
    assert str(report).startswith("Complete: all 3 shards committed")
    assert "\nnext: batchrunner verify" in str(report)
    assert len(str(report).splitlines()) == 3


def test_a_plan_is_a_table_of_what_is_to_do(tmp_path):
    """The first look at what a run will do, and why."""
    a_source(tmp_path / "in", shards=30)
    plan = BatchRunner(a_spec(tmp_path)).plan()
    text = is_harmless(plan._repr_html_())

    assert str(plan) == "plan: 30 shards, 0 committed, 30 pending"
    assert "in-000.jsonl" in text
    assert "new run" in text
    assert "the first 20, and 10 more" in text


class Ended:
    """A tracker whose job has failed."""

    def look(self, job_id, *, seconds):
        return JobState.ended(Outcome(JobStatus.FAILED, error=HOSTILE))


def test_jobs_are_a_table_one_and_many():
    """`list_jobs()` in a cell was a list of angle brackets."""
    job = Job("j-1", job_name=HOSTILE, created_at=datetime(2026, 1, 2, tzinfo=UTC), tracker=Ended())

    assert is_harmless(job._repr_html_()).count(HOSTILE) == 2
    text = is_harmless(JobList([job, job])._repr_html_())
    assert text.startswith("2 jobs")
    assert text.count("failed") == 2


def test_a_script_is_left_with_how_its_run_ended(tmp_path, capsys, monkeypatch):
    """Plain lines ended with `finishing, 3/3 shards`: done, or not?"""
    monkeypatch.setitem(sys.modules, "IPython", None)
    a_source(tmp_path / "in")
    BatchRunner(a_spec(tmp_path)).run()

    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("done: 3 of 3 shards committed (3 new, ")
    assert sum(line.startswith("done:") for line in said) == 1
