"""What the report of a run says, from documents on a disk: no Ray, no browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.dead_letters import dead_letter_in
from batchrunner.errors import CapabilityImportError, ObjectNotFoundError
from batchrunner.runner import BatchRunner
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import ErrorGroup
from batchrunner.views.report_cells import MOST_CELLS, ShardFacts, ShardState, cells_of, group_for
from batchrunner.views.report_charts import charts_of
from batchrunner.views.report_data import run_report
from batchrunner.views.report_drawing import drawing_of
from batchrunner.views.report_histogram import histogram_of
from batchrunner.views.report_markup import cut, el, escaped
from batchrunner.views.report_page import page
from batchrunner.views.report_times import Axis, gaps_of, rates_of, timed
from batchrunner.views.status import status_of
from builders import a_spec, rows, write_jsonl
from recorded_run import BEGAN, COMPLETE, OnPaper, record_run

STOPPED = {"committed": 3, "failed": 0, "stopped": "SIGTERM", "complete": False}
HOURS = 5 * 3600.0


def reported(folder, sessions, **how):
    return run_report(record_run(folder, sessions, **how), spec="spec.yaml")


def killed_and_resumed(folder, **how):
    sessions = [OnPaper(7), OnPaper(5, later=HOURS), OnPaper(8, later=30, end=COMPLETE)]
    return reported(folder, sessions, shards=20, **how)


def data_in(html):
    packed = re.search(r'id="data">([^<]*)<', html)[1]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


class Tags(HTMLParser):
    """The tags of a page, as a browser would see them."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


# What it says.


def test_the_numbers_are_those_of_status_and_of_the_sessions_together(tmp_path):
    """A report that counts otherwise than `status` would be believed by no reader twice."""
    report = killed_and_resumed(tmp_path, fails=0.5)
    status = status_of(Checkpoint.current(open_storage(str(tmp_path)))).to_dict()

    values = report.to_dict()
    for name in ("rows_in", "rows_out", "rows_failed", "bytes_out", "shards"):
        assert values["totals"][name] == status[name]
    assert status["rows_failed"] > 0
    for name in ("rows_in", "rows_out", "rows_failed"):
        assert sum(session[name] for session in values["sessions"]) == status[name]
        assert sum(shard[name] for shard in values["shards"]) == status[name]
    assert values["verdict"]["state"] == status["state"] == "complete"


def test_sessions_come_in_order_with_their_ends_and_what_changed(tmp_path):
    """Who was killed, when, and with which packages the rest was made."""
    new = {"python": "3.12.3", "torch": "2.10.0"}
    last = OnPaper(5, end=COMPLETE, versions=new)
    report = reported(tmp_path, [OnPaper(3), OnPaper(2, end=STOPPED), last], shards=10)

    assert [session.number for session in report.sessions] == [1, 2, 3]
    assert [session.end for session in report.sessions] == [
        "killed",
        "stopped: SIGTERM",
        "complete",
    ]
    assert [session.committed for session in report.sessions] == [3, 2, 5]
    assert [session.changes for session in report.sessions] == [(), (), ("torch 2.9.1 -> 2.10.0",)]


def test_what_was_committed_in_the_last_session_is_told_from_what_was_before(tmp_path):
    """The map shows what the last night has brought."""
    report = reported(tmp_path, [OnPaper(4), OnPaper(3)], shards=10, quarantined=[8])

    assert "".join(shard.state for shard in report.shards) == "====###.x."


@pytest.mark.parametrize(
    ("sessions", "state", "step"),
    [
        ([OnPaper(10, end=COMPLETE)], "complete", "batchrunner verify spec.yaml"),
        ([OnPaper(4, end=STOPPED)], "stopped", "batchrunner run spec.yaml"),
        ([OnPaper(4)], "running elsewhere, or lost", "batchrunner status spec.yaml"),
        (
            [OnPaper(10, end={**COMPLETE, "complete": False})],
            "failed",
            "batchrunner errors spec.yaml",
        ),
        (
            [OnPaper(4, end={**STOPPED, "stopped": "max_row_errors"})],
            "stopped",
            "batchrunner errors",
        ),
    ],
)
def test_the_verdict_names_the_state_and_the_line_to_paste(tmp_path, sessions, state, step):
    """The first thing on the page, at 3 a.m."""
    verdict = reported(tmp_path, sessions, shards=10).verdict

    assert verdict.state == state
    assert verdict.steps[0].command.startswith(step)
    assert verdict.happened.endswith(".")


def test_a_session_that_failed_says_why_and_how_long_it_ran(tmp_path):
    """That Ray did not start in two minutes was "0.52 s, ended by an error, or by force"."""
    write_jsonl(tmp_path / "in/in.jsonl", rows(0, 10))
    runner = BatchRunner(a_spec(tmp_path, capability="capabilities:Unbuildable"))
    with pytest.raises(CapabilityImportError):
        runner.run(progress="off")

    [session] = runner.report().sessions
    assert session.end.startswith("failed (exit code 3): CapabilityImportError: ")
    assert session.seconds > 0


def test_a_change_that_decides_no_output_is_shown_and_the_spec_is_the_last_one(tmp_path):
    """The batch size that a user has just changed is what the report is read for."""
    write_jsonl(tmp_path / "in/in.jsonl", rows(0, 10))
    code = {"target": "failing:misspelt", "fn_kwargs": {"path": str(tmp_path / "calls")}}
    for size in (5, 5, 3):
        execution = {"engine": "local", "batch_size": size}
        BatchRunner(a_spec(tmp_path, capability=code, execution=execution)).run(progress="off")

    report = run_report(Checkpoint(open_storage(str(tmp_path / "out/_checkpoint"))))

    assert '"batch_size": 3' in report.documents.asked[-1].spec
    [first, second, third] = [session.changes for session in report.sessions]
    assert (first, second) == ((), ())
    assert third == ("the text of the spec, in nothing that decides the output",)
    assert "were the same in all sessions" not in report.to_html()


def report_of_failing(folder, **capability):
    """Run this capability, on ten rows in one shard, and return the report of the run."""
    write_jsonl(folder / "in/in.jsonl", rows(0, 10))
    runner = BatchRunner(a_spec(folder, capability=capability))
    assert not runner.run(progress="off").ok
    return runner.report()


def test_rows_of_shards_that_failed_are_counted_though_no_total_has_them(tmp_path):
    """Not "too many rows failed (0)": the totals are of committed shards, of which there are none."""
    code = {"target": "failing:misspelt", "fn_kwargs": {"path": str(tmp_path / "calls")}}

    report = report_of_failing(tmp_path, **code)

    assert report.totals.rows_failed == 0  # as in `status`
    count = report.dead_letters.of_failed_shards
    assert count > 0
    said = (
        rf"in the output \({count} rows failed, {count} of them in shards that failed\): KeyError: "
    )
    assert re.search(
        said + r".*txt.*, failing\.py:\d+; 0 of 1 shard committed\.", report.verdict.happened
    )
    assert f"0 <small>+ {count} in shards that failed</small>" in report.to_html()


def test_the_first_three_kinds_of_failure_are_open_and_each_names_its_line(tmp_path):
    """A reader need not guess that a line opens, nor open it to see where the code failed."""
    report = report_of_failing(tmp_path, target="failing:fails_in_kinds")

    groups = re.findall(
        r'<details class="group"([^>]*)>(.*?)</details>', report.to_html(), re.DOTALL
    )
    assert [is_open for is_open, _ in groups] == [" open"] * 3 + [""] * 2
    for _, group in groups:
        assert re.search(r"failing\.py:\d+</bdi></summary>", group)
    assert re.search(r"allows: KeyError: .*, failing\.py:\d+\.", report.verdict.happened)


def test_status_and_report_call_a_run_failed_where_run_did(tmp_path):
    """It was "failed: 9 of 10 shards committed" at its end, and `run` will not mend it."""
    end = {"committed": 9, "failed": 1, "stopped": None, "complete": False}
    checkpoint = record_run(tmp_path, [OnPaper(9, end=end)], shards=10, quarantined=[9])

    assert both(checkpoint) == ("failed", "failed")
    verdict = run_report(checkpoint.reopened(), spec="spec.yaml").verdict
    assert verdict.happened == "Failed: 1 shard failed; 9 of 10 shards committed."
    assert [step.command for step in verdict.steps] == [
        "batchrunner errors spec.yaml",
        "batchrunner retry spec.yaml",
    ]
    assert status_of(checkpoint).next.startswith("batchrunner errors")


def test_a_run_with_a_failed_shard_that_a_signal_stopped_is_stopped(tmp_path):
    """As `run` said: there is work left beside what failed."""
    checkpoint = record_run(tmp_path, [OnPaper(8, end=STOPPED)], shards=10, quarantined=[9])

    assert both(checkpoint) == ("stopped", "stopped")


def test_a_quarantined_shard_is_released_by_retry(tmp_path):
    """`run` would not try it again."""
    report = reported(tmp_path, [OnPaper(9, end=STOPPED)], shards=10, quarantined=[9])

    assert report.verdict.steps[-1].command == "batchrunner retry spec.yaml"
    assert "quarantined until retry" in report.to_html()


def test_a_checkpoint_alone_gives_commands_with_its_uri_or_the_word_spec(tmp_path):
    """Of a run whose spec is not at hand; the page then has its text."""
    checkpoint = record_run(tmp_path, [OnPaper(1)], shards=2)

    html = run_report(checkpoint).to_html()

    assert f"batchrunner errors {tmp_path}" in html
    assert "batchrunner run SPEC" in html
    assert "source: in" in html


def test_a_checkpoint_that_names_its_spec_gives_commands_that_can_be_pasted(tmp_path):
    """From any folder; a session that has not said how it was started takes nothing away."""
    checkpoint = record_run(tmp_path, [OnPaper(1), OnPaper(1)], shards=4)
    log = f"sessions/{1:032x}.jsonl"
    first, *rest = checkpoint.storage.get(log).splitlines()
    started = {**json.loads(first), "spec": "spec.yaml --set name=b", "folder": "/jobs/of ada"}
    checkpoint.storage.put(log, b"\n".join([json.dumps(started).encode(), *rest]))

    report = run_report(checkpoint)

    commands = [step.command for step in report.again]
    assert "cd '/jobs/of ada' && batchrunner run spec.yaml --set name=b" in commands
    assert f"batchrunner errors {tmp_path}" in commands
    assert "spec.yaml --set name=b, in /jobs/of ada" in report.to_html()
    by_spec = run_report(checkpoint, spec="here.yaml")
    assert by_spec.again[0].command == "batchrunner run here.yaml"


def test_a_clean_after_the_end_does_not_make_a_complete_run_fail(tmp_path):
    """It has a session of its own, which committed nothing."""
    checkpoint = record_run(tmp_path, [OnPaper(3, end=COMPLETE), OnPaper(0, end={})], shards=3)
    log = f"sessions/{2:032x}.jsonl"
    started = checkpoint.storage.get(log).splitlines()[0]
    at = json.loads(started)["at"]
    cleaned = json.dumps({"at": at, "action": "cleaned", "objects": 0}).encode()
    checkpoint.storage.put(log, b"\n".join([started, cleaned]))

    report = run_report(Checkpoint.current(checkpoint.storage))

    assert report.verdict.state == "complete"
    assert [session.kind for session in report.sessions] == ["run", "clean"]


# At any time.


def test_no_run_is_an_error_with_a_way_out(tmp_path):
    """A mistyped path must not look like an empty run."""
    with pytest.raises(ObjectNotFoundError, match="batchrunner run SPEC"):
        run_report(Checkpoint.current(open_storage(str(tmp_path))))


def test_a_run_without_rows_and_one_without_a_commit_have_a_report(tmp_path):
    """Nothing to draw is no reason to fail."""
    empty = reported(tmp_path / "a", [OnPaper(0, end=COMPLETE)], shards=0)
    begun = reported(tmp_path / "b", [OnPaper(0)], shards=5)

    assert empty.verdict.happened == "Complete: the source has no rows, and so the output has none."
    assert "0 of 5 shards committed" in begun.verdict.happened
    assert empty.to_html().startswith("<!doctype html>")
    assert begun.to_html().startswith("<!doctype html>")


def test_a_run_of_an_earlier_version_says_what_it_lacks(tmp_path):
    """Its sentinels have no times; a chart of what is missing would be a lie."""
    html = killed_and_resumed(tmp_path, dated=False).to_html()

    assert "20 shards missing here, committed by an earlier batchrunner" in html
    assert 'id="lanes"' not in html
    assert 'id="histogram"' in html


def test_a_run_of_version_1_on_disk_has_a_report(tmp_path):
    """As it lies in `tests/data`, written by that version."""
    v1 = next(path for path in (files("batchrunner") / "../tests/data/v1").glob("**/run.json"))
    shutil.copytree(v1.parent, tmp_path / "checkpoint")

    report = run_report(Checkpoint.current(open_storage(str(tmp_path / "checkpoint"))))

    assert report.verdict.state == "complete"
    assert report.totals.rows_out > 0


@pytest.mark.parametrize(
    "damaged",
    ["run.json", "plan/0000.parquet", "sentinels/part-00003.json", "changes/0001.json"],
)
def test_a_damaged_document_is_named_and_the_rest_is_shown(tmp_path, damaged):
    """The report of a damaged run is when it is needed most; what can be read is in it."""
    checkpoint = record_run(tmp_path, [OnPaper(7)], shards=10)
    for entry in checkpoint.records.list("sentinel_index"):
        checkpoint.records.delete([entry.key])
    checkpoint.storage.put(damaged, b"torn")

    report = run_report(Checkpoint.current(checkpoint.storage), spec="spec.yaml")

    assert report.verdict.state == "damaged"
    assert damaged in report.verdict.happened
    assert report.verdict.steps[1].command == "batchrunner verify --repair spec.yaml"
    assert len(report.documents.sentinels) == (6 if "sentinels" in damaged else 7)
    assert damaged in report.to_html()


def test_torn_event_logs_and_leases_cost_only_what_they_said(tmp_path):
    """They are for people; no row depends on them."""
    checkpoint = record_run(tmp_path, [OnPaper(4), OnPaper(3)], shards=10)
    checkpoint.storage.put(f"sessions/{1:032x}.jsonl", b"{torn")
    checkpoint.storage.put("lease/00000001.json", b"")

    report = run_report(checkpoint)

    assert report.totals.rows_in == sum(session.rows_in for session in report.sessions)
    assert report.to_html()


# What is drawn.


def test_the_rates_hold_every_row(tmp_path):
    """Bins that lose rows would show a dip that was none."""
    report = killed_and_resumed(tmp_path)

    rates = rates_of(report.axis, timed(report.documents.sentinels.values()))

    drawn = sum(y * rates.step for y in rates.y if y is not None)
    assert drawn == pytest.approx(report.totals.rows_in)
    assert rates.y.count(None) == 3


def test_hours_between_sessions_are_named_and_drawn_short(tmp_path):
    """Else the work of minutes would be a line at each edge."""
    report = killed_and_resumed(tmp_path)

    assert gaps_of(report.axis)[0] == pytest.approx(HOURS, abs=1)
    assert report.axis.length < HOURS / 10
    assert "5 h 00 min, 30.0 s" in report.to_html()


def test_a_short_gap_is_drawn_to_scale():
    """Only what would squeeze the rest is cut."""
    axis = Axis.of([(0, 100), (105, 200)])

    assert axis.length == 200
    assert axis.at(105) == 105
    assert axis.at(102) == 100


def test_overlapping_stretches_are_one():
    """A worker of a dead driver writes on for seconds, while the next session has begun."""
    assert len(Axis.of([(0, 10), (8, 20)]).spans) == 1


@pytest.mark.parametrize(
    "seconds", [[3.0], [2.0, 2.0], [0.0, 0.0], [1e-4, 2000.0], list(range(99))]
)
def test_every_shard_is_in_the_histogram(seconds):
    """Also the fastest and the slowest."""
    histogram = histogram_of(map(float, seconds))

    assert sum(histogram.counts) == len(seconds)
    for (low, high), count in zip(pairwise(histogram.edges), histogram.counts, strict=True):
        assert count == sum(low <= max(one, histogram.edges[0]) < high for one in seconds)
    assert list(histogram.edges) == sorted(set(histogram.edges))
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert histogram.edges[0] <= max(min(seconds), 1e-3)


def test_a_cell_of_many_shards_shows_the_one_that_needs_to_be_seen():
    """A failed shard among a hundred committed ones must not vanish."""
    facts = ShardFacts(0, ShardState.BEFORE, "in", "bytes", 0, 1)
    states = [ShardState.NOW, ShardState.FAILED, ShardState.PENDING]
    shards = [replace(facts, id=n, state=state) for n, state in enumerate(states)]

    (cell,) = cells_of(shards, group=3)

    assert cell.state is ShardState.FAILED
    assert cell.example.id == 1


@pytest.mark.parametrize("shards", [1, 9_999, 10_000, 10_001, 1_000_000])
def test_a_map_never_has_more_cells_than_fit(shards):
    """At 100,000 shards a cell stands for ten."""
    group = group_for(shards)

    assert -(-shards // group) <= MOST_CELLS


def test_names_of_files_that_do_not_compress_make_the_map_coarser_not_the_page_larger(tmp_path):
    """The page has a promise of 500 KiB."""
    report = killed_and_resumed(tmp_path)
    facts = report.shards[0]
    noise = [hashlib.sha512(str(n).encode()).hexdigest() for n in range(9_000)]
    shards = tuple(replace(facts, id=n, source=f"s3://b/{name}") for n, name in enumerate(noise))

    html = replace(report, shards=shards).to_html()

    assert len(html.encode()) <= 500 * 1024
    assert data_in(html)["map"]["group"] > 1


def test_what_the_scripts_get_is_what_the_values_are(tmp_path):
    """Packed and unpacked, nothing is lost on the way."""
    report = killed_and_resumed(tmp_path, fails=0.5)

    drawn = data_in(report.to_html())

    assert drawn == json.loads(json.dumps(drawing_of(report)))
    assert sum(drawn["map"]["rows_in"]) == report.totals.rows_in
    assert sum(drawn["map"]["failed"]) == report.totals.rows_failed
    assert sum(drawn["histogram"]["counts"]) == 20
    assert sum(drawn["time"]["blocks"]["shards"]) == 20


def test_each_state_has_a_sign_of_its_own_beside_its_colour(tmp_path):
    """One man in twelve does not see the difference between green and red."""
    html = "".join(charts_of(killed_and_resumed(tmp_path)))

    legend = re.search(r'<div class="legend">(.*?)</div>', html)[1]
    signs = re.findall(r'class="cell ([\w-]+)".*?(<svg.*?</svg>)', legend)
    drawn = {name: re.findall(r'd="([^"]*)"', svg) for name, svg in signs}
    plain = {name for name, paths in drawn.items() if not paths}

    assert plain == {"now", "pending"}  # one filled, one hollow
    assert len({tuple(paths) for paths in drawn.values()}) == 5


# The page.


def test_the_policy_allows_what_is_in_the_page_and_nothing_else(tmp_path):
    """By hash; a script that got in by a mistake of ours would not run."""
    html = killed_and_resumed(tmp_path).to_html()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace(
        "&#x27;", "'"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)

    def hashes(texts):
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return {f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests}

    assert rules["default-src"] == "'none'"
    assert set(rules["script-src"].split()) == hashes(scripts)
    assert set(rules["style-src"].split()) == hashes(styles)
    assert "unsafe" not in policy
    assert "http:" not in policy


def test_no_tag_has_a_handler_a_style_or_an_address(tmp_path):
    """The policy would block them, with an error on the console."""
    for tag, attributes in Tags(killed_and_resumed(tmp_path).to_html()).found:
        assert not {name for name in attributes if name.startswith("on")}
        assert not attributes.keys() & {"style", "src", "srcset", "action"}
        assert "href" not in attributes or attributes["href"].startswith("data:"), tag


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("</script><b>", "&lt;/script&gt;&lt;b&gt;"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u0000\u001bb", "a\\x00\\x1bb"),
        ('"&', "&quot;&amp;"),
        ("naïve 日本 🏳\u200d🌈\n", "naïve 日本 🏳\u200d🌈\n"),
        ("\ud800", "\\ud800"),
    ],
)
def test_hostile_text_stays_text(text, shown):
    """In an element and in an attribute, and nothing in it is hidden or turned around."""
    assert escaped(text) == shown
    assert el("p", text, title=text) == f'<p title="{shown}">{shown}</p>'


def test_data_cannot_end_the_element_that_holds_it():
    """A row with `</script>` in it is packed away."""
    html = page(title="t", tone="good", body=[], data={"why": "</script><script>alert(1)</script>"})

    assert data_in(html) == {"why": "</script><script>alert(1)</script>"}
    assert "alert(1)" not in html


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("uPlot.iife.min.js", "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"),
        ("uPlot.min.css", "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04"),
        ("uPlot-LICENSE.txt", "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd"),
    ],
)
def test_the_charting_library_is_the_published_one(name, sha256):
    """UPlot 1.6.32, unmodified, beside its licence; a change is a decision, not an accident."""
    data = (files("batchrunner.views") / "assets" / name).read_bytes()

    assert hashlib.sha256(data).hexdigest() == sha256


def test_the_version_of_the_charting_library_stands_in_it():
    """So that a scanner, and a reader, can look up what is known of it."""
    text = (files("batchrunner.views") / "assets/uPlot.iife.min.js").read_text()

    assert text.startswith("/*! https://github.com/leeoniya/uPlot (v1.6.32) */")


def test_time_begins_when_the_first_session_did(tmp_path):
    """The clock of the axis is that of the machines, in UTC."""
    assert killed_and_resumed(tmp_path).axis.spans[0].start == pytest.approx(BEGAN)


# What status and report say alike, whatever became of the logs.


def both(checkpoint):
    checkpoint = checkpoint.reopened()
    return status_of(checkpoint).state, run_report(checkpoint).verdict.state


def add_event(checkpoint, session, **event):
    log = f"sessions/{session:032x}.jsonl"
    line = json.dumps({"at": "2026-11-27T12:00:00+00:00", **event}).encode() + b"\n"
    checkpoint.storage.put(log, checkpoint.storage.get(log) + line)


def test_a_hook_that_fails_after_the_end_does_not_make_a_complete_run_fail(tmp_path):
    """A webhook that is down at the end is no reason to make 60 shards again."""
    checkpoint = record_run(tmp_path, [OnPaper(3, end=COMPLETE)], shards=3)
    add_event(checkpoint, 1, action="hook_failed", hook="webhook", method="on_run_end", why="down")

    assert both(checkpoint) == ("complete", "complete")


def test_too_many_failed_rows_are_the_reason_only_where_the_session_says_so(tmp_path):
    """A session that an error ended after its last shard said nothing of rows."""
    checkpoint = record_run(tmp_path, [OnPaper(3, end=STOPPED)], shards=3)
    add_event(checkpoint, 1, action="hook_failed", hook="webhook", method="on_run_end", why="down")
    assert both(checkpoint) == ("failed", "failed")

    checkpoint = record_run(tmp_path / "error", [OnPaper(3, end=COMPLETE)], shards=3)
    log = f"sessions/{1:032x}.jsonl"
    checkpoint.storage.put(log, b"\n".join(checkpoint.storage.get(log).splitlines()[:-1]))
    assert both(checkpoint) == ("stopped", "stopped")
    assert "max_row_errors" not in run_report(checkpoint).to_html()


@pytest.mark.parametrize(
    ("harm", "data"),
    [
        (f"sessions/{2:032x}.jsonl", b""),
        (f"sessions/{2:032x}.jsonl", None),
        (f"sessions/{2:032x}.jsonl", b"{torn"),
        ("lease/00000002.json", b""),
    ],
)
def test_status_and_report_agree_on_a_complete_run_that_lost_its_last_log_or_lease(
    tmp_path, harm, data
):
    """An earlier session, which was stopped, did not end the run."""
    stopped = OnPaper(2, end=STOPPED)
    checkpoint = record_run(tmp_path, [stopped, OnPaper(1, end=COMPLETE)], shards=3)
    checkpoint.storage.delete([harm])
    if data is not None:
        checkpoint.storage.put(harm, data)

    assert both(checkpoint) == ("complete", "complete")
    report = run_report(checkpoint.reopened())
    assert len(report.sessions) == 2
    assert report.verdict.happened.startswith("Complete: all 3 shards committed")


# What is odd, but can be parsed.


def change_log(checkpoint, session, **fields):
    """Change the last event of a session's log."""
    log = f"sessions/{session:032x}.jsonl"
    *rest, last = checkpoint.storage.get(log).splitlines()
    odd = json.dumps({**json.loads(last), **fields}).encode()
    checkpoint.storage.put(log, b"\n".join([*rest, odd, b""]))


@pytest.mark.parametrize(
    "fields",
    [
        {"action": []},
        {"failed": "text"},
        {"failed": 1e300},
        {"at": 7},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "2026-11-27T12:00:00"},
        {"action": "progress", "rows_in_flight": "many", "rows_allowed": []},
        {"action": "packages_found", "versions": 5},
        {"action": "shard_failed", "shard": "x", "why": []},
    ],
)
def test_an_odd_event_costs_only_what_it_said(tmp_path, fields):
    """As a torn one: no row depends on it."""
    checkpoint = record_run(tmp_path, [OnPaper(2, end=COMPLETE)], shards=3)
    change_log(checkpoint, 1, **fields)

    states = both(checkpoint)

    assert states == ("stopped", "stopped")
    assert run_report(checkpoint.reopened()).to_html()
    assert run_report(checkpoint.reopened()).totals.rows_in > 0


@pytest.mark.parametrize(
    "mark",
    [{"shards": 5}, {"shards": [[]]}, {"session": 5}, {"node": {}}],
)
def test_an_odd_mark_is_passed_over(tmp_path, mark):
    """It is of no worker of ours."""
    checkpoint = record_run(tmp_path, [OnPaper(2)], shards=3)
    whole = {"version": 1, "session": "s", "node": "", "shards": [2]}
    checkpoint.records.put("attempts/x.json", json.dumps({**whole, **mark}).encode())

    assert run_report(checkpoint).documents.marks == ()


@pytest.mark.parametrize("at", ["", "0001-01-01T00:00:00", "yesterday"])
def test_a_record_without_a_time_has_a_report(tmp_path, at):
    """Then all sessions of the checkpoint are shown."""
    checkpoint = record_run(tmp_path, [OnPaper(2), OnPaper(1, end=COMPLETE)], shards=3)
    record = checkpoint.run()
    checkpoint.storage.put("run.json", replace(record, created_at=at).to_bytes())

    report = run_report(checkpoint.reopened())

    assert report.to_html()
    assert len(report.sessions) == 2


@pytest.mark.parametrize("odd", [{"code": 1e300}, {"code": []}, {"at": "x"}, {"traceback": 5}])
def test_an_odd_dead_letter_is_damaged(odd):
    """The report names its file, as it does any that is damaged."""
    whole = {"source": "s", "unit": "line", "stage": "call", "error": "E", "message": "m", "at": 3}
    assert dead_letter_in(json.dumps(whole).encode()) == whole

    with pytest.raises(ValueError, match="no dead letter"):
        dead_letter_in(json.dumps({**whole, **odd}).encode())


# Clocks that are wrong.


def with_times(checkpoint, shards, **times):
    """Change the times of the sentinels of these *shards*; a value may be a function of the old one."""
    found = dict(checkpoint.sentinels().good)
    for shard in shards:
        old = found[shard]
        new = {k: v(getattr(old, k)) if callable(v) else v for k, v in times.items()}
        found[shard] = replace(old, **new)
    for entry in checkpoint.records.list("sentinel_index"):
        checkpoint.records.delete([entry.key])
    for shard in shards:
        checkpoint.records.put(f"sentinels/part-{shard:05d}.json", found[shard].to_bytes())
    return checkpoint.reopened()


DAY, YEAR_3000 = 86_400.0, 32_503_680_000.0


@pytest.mark.parametrize(
    "times",
    [
        {"began": YEAR_3000},
        {"began": 1.0},
        {"began": lambda began: began - DAY},
        {"began": lambda began: began + DAY},
        {"seconds": 1e308},
        {"began": 1e308, "seconds": 1e308, "reading": 1e308},
    ],
)
def test_a_wrong_clock_of_one_worker_changes_no_time_of_the_run(tmp_path, times):
    """Its driver's clock has the begin and the end of each session."""
    sessions = [OnPaper(7, end=STOPPED), OnPaper(5, later=HOURS, end=COMPLETE)]
    right = run_report(record_run(tmp_path / "right", sessions, shards=12))
    checkpoint = with_times(record_run(tmp_path / "wrong", sessions, shards=12), [4], **times)

    wrong = run_report(checkpoint)

    for one, other in zip(right.sessions, wrong.sessions, strict=True):
        assert one.seconds == pytest.approx(other.seconds)
        assert one.began == pytest.approx(other.began)
    assert wrong.axis.length == pytest.approx(right.axis.length)
    assert wrong.documents.skewed == (wrong.documents.sentinels[4].worker,)
    assert "The clock was wrong at node-" in wrong.to_html()
    assert "The clock was wrong" not in right.to_html()


def test_a_worker_that_is_a_day_back_keeps_the_order_of_its_attempts(tmp_path):
    """They are moved together, and not heaped up at the begin of the session."""
    session = OnPaper(9, workers=1, end=COMPLETE)
    checkpoint = record_run(tmp_path, [session], shards=9)
    right = timed(run_report(checkpoint).documents.sentinels.values())

    moved = with_times(checkpoint, range(9), began=lambda began: began - DAY)

    found = timed(run_report(moved).documents.sentinels.values())
    assert [one.shard for one in found] == [one.shard for one in right]
    gaps = [(b.began - a.began) for a, b in pairwise(found)]
    assert gaps == pytest.approx([(b.began - a.began) for a, b in pairwise(right)])
    assert found[0].began >= BEGAN


def test_without_a_log_a_wrong_clock_breaks_nothing(tmp_path):
    """Then no time is later than now."""
    checkpoint = record_run(tmp_path, [OnPaper(3, end=COMPLETE)], shards=3)
    checkpoint.storage.delete([f"sessions/{1:032x}.jsonl"])
    checkpoint = with_times(checkpoint, [1], began=YEAR_3000, seconds=1e308)

    assert run_report(checkpoint).to_html()


# Text that is larger in a page than it looks.

TAG = "\U000e0041"
"""A letter of no width, which a page shows as ten."""


@pytest.mark.parametrize("letter", [TAG, "<", "中", '"'])
def test_hostile_text_does_not_make_the_page_larger_than_promised(tmp_path, letter):
    """500 KiB, so that it can be sent by mail: an escape takes up to ten times its sign."""
    report = killed_and_resumed(tmp_path)
    text = letter * 9_000
    words = dict.fromkeys(("stage", "code", "message", "source", "unit", "raw", "traceback"), text)
    groups = tuple(
        ErrorGroup(error=f"E{n}{text}", shard_failed=True, rows=1, shards=1, at=1, **words)
        for n in range(40)
    )
    failed = replace(report.shards[0], state=ShardState.FAILED, why=text)
    shards = tuple(replace(failed, id=n, source=f"/in/{n}{text}") for n in range(60))
    asked = replace(report.documents.asked[0], spec=text * 3)
    documents = replace(report.documents, problems=(text,) * 30, asked=(asked,))
    examples = replace(report.dead_letters, groups=groups, rows=40, shards=40, of_shards=40)

    hostile = replace(report, shards=shards, dead_letters=examples, documents=documents)

    assert len(hostile.to_html().encode()) <= 500 * 1024


def test_text_is_cut_by_its_characters_and_by_what_they_take():
    """Only what takes more than two bytes each in a page is cut earlier."""
    assert cut("a" * 20, 20) == "a" * 20
    assert cut("a" * 21, 20) == f"{'a' * 20}… (21 characters)"
    assert cut(TAG * 20, 20) == f"{TAG * 4}… (20 characters)"


def test_the_readout_of_the_map_shows_names_as_the_page_does(tmp_path):
    """A name with a reversed part would read as another one."""
    report = killed_and_resumed(tmp_path)
    bad = "a\u202eb\x1bc\u2028d"
    shard = replace(report.shards[0], source=f"/in/{bad}.jsonl", why=f"{bad}: no such file")

    drawn = drawing_of(replace(report, shards=(shard,)))["map"]

    assert drawn["sources"] == [r"/in/a\u202eb\x1bc\u2028d.jsonl"]
    assert drawn["why"] == {"0": r"a\u202eb\x1bc\u2028d: no such file"}
