"""The comparison with others: what is compared, and that the pages say what was measured."""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks.comparison.by_hand import BY_HAND, READ
from benchmarks.comparison.contestants import CONTESTANTS
from benchmarks.comparison.found import Found, found_in
from benchmarks.comparison.jobs.work import STEP
from benchmarks.comparison.scenarios import TITLES
from benchmarks.comparison.tables import PAGES, RESULTS, filled, in_short, summary
from benchmarks.inputs import rows


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text())


def lines_of(found):
    return "".join(json.dumps(row) + "\n" for row in found)


def computed(count, version=1):
    return [{**row, "n": len(row["text"]) + (version - 1) * STEP} for row in rows(0, count)]


def test_the_tables_of_the_pages_are_what_was_measured(results):
    """A cell that was improved by hand would be found here."""
    pages = {path: path.read_text() for path in PAGES}
    with_a_table = [path for path, text in pages.items() if "<!-- comparison" in text]

    assert with_a_table == list(PAGES)
    assert [path for path in with_a_table if filled(pages[path], results) != pages[path]] == []


def test_the_table_of_the_readme_can_be_read_in_ten_seconds(results):
    """The counts are behind the link."""
    header, _, *rows = in_short(results).splitlines()

    assert header.count("|") - 1 <= 5
    assert len(rows) <= 6
    assert max(len(cell) for row in rows for cell in row.split("|")) < 90
    assert "**1,000 rows missing**" in in_short(results)


def test_what_was_not_measured_is_said_to_be_so(results):
    """A scenario that ends badly for a contestant cannot be left out in silence."""
    kept = copy.deepcopy(results)
    of_daft = next(one for one in kept["contestants"] if one["name"] == "Daft, checkpoint")
    of_daft["outcomes"].pop("killed", None)

    row = next(line for line in summary(kept).splitlines() if TITLES["killed"] + " |" in line)

    assert "not measured" in row


def test_only_scenarios_that_a_contestant_takes_part_in_are_kept(results):
    measured = {one["name"]: one["outcomes"].keys() for one in results["contestants"]}

    for one in CONTESTANTS:
        assert measured.get(one.name, set()) <= set(one.scenarios or TITLES), one.name
    assert measured["batchrunner"] == TITLES.keys() - {"bad row, tolerant"}


def test_our_own_runs_that_succeeded_left_each_row_once(results):
    """The promise that the page makes is in the figures, for each scenario."""
    ours = next(one for one in results["contestants"] if one["name"] == "batchrunner")

    for key, outcome in ours["outcomes"].items():
        flaws = {outcome["found"][flaw] for flaw in ("lost", "doubled", "wrong", "unreadable")}
        mixed = outcome["found"]["old"] and outcome["found"]["new"]
        assert outcome["exit_code"] != 0 or (flaws == {0} and not mixed), key


def test_words_are_about_what_was_measured():
    """A word for a scenario that is gone would stand in no table, and be missed by its writer."""
    assert {key for words in [*BY_HAND.values(), READ] for key in words} <= TITLES.keys()
    assert BY_HAND.keys() == {one.name for one in CONTESTANTS}


def test_an_output_with_each_row_once_has_no_flaw(tmp_path):
    (tmp_path / "one.jsonl").write_text(lines_of(computed(5)))
    (tmp_path / "_checkpoint").mkdir()
    (tmp_path / "_checkpoint" / "not-output.json").write_text("{}")

    assert found_in(tmp_path, expected=rows(0, 5), is_table=False) == Found(5, 0, 0, 0, 0, 5, 0, 0)


def test_each_flaw_of_an_output_is_counted(tmp_path):
    """Rows are compared by content: a count alone does not see a row lost and another doubled."""
    good = computed(10)
    (tmp_path / "one.jsonl").write_text(lines_of([*good[:7], good[0], good[0]]) + '{"id": 8, "te')
    (tmp_path / "two.json").write_text(
        lines_of(
            [{**good[7], "n": None}, {**good[8], "text": "another"}, *computed(10, version=2)[9:]]
        )
    )

    found = found_in(tmp_path, expected=rows(0, 11), is_table=False)

    assert found == Found(
        rows=12, lost=1, doubled=2, without_result=1, wrong=1, old=10, new=1, unreadable=1
    )


def test_of_a_delta_table_only_the_files_that_its_log_names_are_there(tmp_path):
    """What a dead writer left is no row of the table."""
    (tmp_path / "_delta_log").mkdir()
    commit = [
        {"add": {"path": "in.json"}},
        {"add": {"path": "gone.json"}},
        {"remove": {"path": "gone.json"}},
    ]
    (tmp_path / "_delta_log" / "0.json").write_text(lines_of(commit))
    for name in ("in.json", "gone.json", "orphan.json"):
        (tmp_path / name).write_text(lines_of(computed(3)))

    assert found_in(tmp_path, expected=rows(0, 3), is_table=True).rows == 3
