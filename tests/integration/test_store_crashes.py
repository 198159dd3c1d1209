"""Whatever instant a writer or a compactor dies at, every run is there once, and can be found."""

from __future__ import annotations

import pytest

from batchrunner.testing.crash import Death
from store_sweep import Sweep, sweep

pytestmark = pytest.mark.sweep


@pytest.mark.parametrize("death", list(Death))
@pytest.mark.parametrize("act", ["write", "compact"])
def test_dying_at_any_change_to_the_disk_loses_and_doubles_no_run(tmp_path, act, death):
    """The promise that jobs and batches rest on."""
    assert [] == sweep(Sweep(str(tmp_path), act, death))


@pytest.mark.parametrize(
    "death",
    [pytest.param(death, marks=[pytest.mark.soak] * (death != Death.AFTER)) for death in Death],
)
def test_dying_while_files_are_put_together_by_the_way_loses_and_doubles_no_run(tmp_path, death):
    """It is done by writers, who are killed whenever their own work is done."""
    assert [] == sweep(Sweep(str(tmp_path), "compact_in_background", death))


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.soak), "after"])
@pytest.mark.parametrize("act", ["write", pytest.param("compact", marks=pytest.mark.soak)])
def test_dying_at_any_request_loses_and_doubles_no_run(moto, prefix, act, moment):
    """The same in a bucket."""
    root = f"s3://{moto.bucket}/{prefix}"
    assert [] == sweep(Sweep(root, act, moment, storage_options=moto.storage_options))


@pytest.mark.parametrize(
    ("mutant", "act", "death"),
    [
        ("runs_first", "write", Death.AFTER),
        ("deletes_at_once", "compact", Death.AFTER),
        ("catalog_first", "compact", Death.AFTER),
        pytest.param(
            "deletes_at_once", "compact_in_background", Death.AFTER, marks=pytest.mark.soak
        ),
        ("no_fsync", "write", Death.POWER_CUT),
    ],
)
def test_the_sweep_sees_what_is_broken(tmp_path, mutant, act, death):
    """A sweep that a wrong order of writes survives would prove nothing."""
    assert [] != sweep(Sweep(str(tmp_path), act, death, mutant))
