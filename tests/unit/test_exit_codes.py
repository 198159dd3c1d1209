"""The page on schedulers handles every exit code that exists."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import yaml

from batchrunner import errors
from batchrunner.driver.report import STOP_CODES, BatchReport
from batchrunner.driver.session import StopReason
from batchrunner.worker.receipt import Cause, Failure

PAGE = (Path(__file__).parents[2] / "docs/how-to/clusters.md").read_text()
ONCE_MORE_AS_OFTEN_AS_IT_COMES = {75, 130, 143}


def job():
    """The Kubernetes Job of the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [one for one in map(yaml.safe_load, blocks) if one.get("kind") == "Job"]
    return found["spec"]


def codes(action):
    rules = job()["podFailurePolicy"]["rules"]
    found = [
        rule["onExitCodes"] for rule in rules if rule["action"] == action and "onExitCodes" in rule
    ]
    assert all(one["operator"] == "In" for one in found)
    return {code for one in found for code in one["values"]}


def codes_of_errors():
    """Of everything that is raised on purpose, and does not belong to a job."""
    tree = [error for error in vars(errors).values() if isinstance(error, type)]
    return {error.exit_code for error in tree if issubclass(error, errors.BatchRunnerError)}


def error_classes():
    classes = [error for error in vars(errors).values() if isinstance(error, type)]
    return [error for error in classes if issubclass(error, errors.BatchRunnerError)]


def test_every_error_keeps_its_message_when_it_is_pickled():
    """Ray moves errors between processes; one that cannot be built again hides the reason."""
    for error in error_classes():
        copy = pickle.loads(pickle.dumps(error("part-00007: the reason")))
        assert (type(copy), str(copy)) == (error, "part-00007: the reason")


def test_the_tree_in_the_docstring_names_every_error_with_its_exit_code():
    """A reader decides by it what to catch; a code that is not given is that of the class above."""
    lines = re.findall(r"^[│├└─ ]*(\w+Error)\b *(\d*)", errors.__doc__, re.MULTILINE)
    assert {name for name, _ in lines} == {error.__name__ for error in error_classes()}
    for name, code in lines:
        error = getattr(errors, name)
        assert error.exit_code == (
            int(code) if code else getattr(error.__mro__[1], "exit_code", 1)
        ), name


def table():
    """What the page says of each code."""
    rows = re.findall(r"^\| ([\d, ]+) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    return {int(code): what for some, what in rows for code in some.split(",")}


def test_the_page_says_what_to_do_with_each_code_that_there_is():
    """A code that is not named there is one of the kernel's."""
    assert table().keys() == {0, *STOP_CODES.values(), *codes_of_errors()}


def test_kubernetes_gives_up_only_for_what_does_not_get_better_by_itself():
    """A raylet's death gives 1, a second pod 4, a storage fault 3: each of them failed the whole Job."""
    assert codes("FailJob") == {errors.InvalidSpecError.exit_code}
    assert codes("FailJob") == {code for code, what in table().items() if what.startswith("fail")}


def test_kubernetes_does_not_count_what_was_a_clean_stop():
    """With work left it is as it should be, however often it comes."""
    stops = {STOP_CODES[reason] for reason in StopReason} - {1, 4}
    assert codes("Ignore") == stops == ONCE_MORE_AS_OFTEN_AS_IT_COMES
    assert {code for code, what in table().items() if "as often as" in what} == stops
    assert job()["template"]["spec"]["restartPolicy"] == "Never"


def a_report(*, quarantined=None, rows_failed=0, **causes):
    return BatchReport(
        run_uid="",
        name="",
        sink="",
        checkpoint="",
        shards=3,
        shards_committed=1,
        shards_new=1,
        rows_in=10,
        rows_out=10,
        rows_failed=rows_failed,
        rows_allowed=0,
        bytes_out=0,
        seconds=0.0,
        failures={n: Failure(cause, "why") for n, cause in enumerate(causes.values())},
        quarantined=quarantined or {},
    )


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (a_report(), 3),
        (a_report(one=Cause.STORAGE), 3),
        (a_report(one=Cause.STORAGE, quarantined={2: "before"}), 3),
        (a_report(one=Cause.STORAGE, two=Cause.CAPABILITY), 1),
        (a_report(one=Cause.CAPABILITY), 1),
        (a_report(quarantined={2: "before"}), 1),
        (a_report(rows_failed=1), 1),
    ],
)
def test_what_the_environment_failed_has_another_code_than_what_the_user_did(report, code):
    """Shards that were lost with a node failed nowhere: they counted as the user's."""
    assert report.exit_code == code
