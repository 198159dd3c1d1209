"""Whatever instant a repair dies at, what is damaged is found again or made again; no row is lost."""

from __future__ import annotations

import pytest

from batchrunner.testing.crash import Death
from repair_sweep import sweep

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize(
    ("death", "stride"),
    [(Death.AFTER, 1), (Death.BEFORE, 3), (Death.TORN, 3), (Death.POWER_CUT, 2)],
)
def test_dying_at_any_change_of_a_repair_loses_and_doubles_nothing(tmp_path, death, stride):
    """A user who repairs has had one accident already."""
    assert [] == sweep(tmp_path, death, stride=stride)


@pytest.mark.parametrize(
    ("mutant", "sign"),
    [("deletes", "holds rows is gone"), ("success_stays", "_SUCCESS stands over less")],
)
def test_the_sweep_sees_a_repair_that_is_wrong(tmp_path, mutant, sign):
    """A sweep that these survive would prove nothing."""
    findings = sweep(tmp_path, Death.AFTER, mutant=mutant, stride=2)

    assert any(sign in finding for finding in findings)
