"""What is removed from outside while a run goes on: the run notices before it calls itself complete."""

import pytest

from batchrunner import BatchRunner
from batchrunner.errors import DamagedOutputError, LeaseHeldError
from batchrunner.storage import open_storage
from builders import a_spec, rows, write_jsonl


def a_run(tmp_path, removed):
    """A complete run of one file, to which one is added during whose call *removed* goes."""
    capability = {"target": "capabilities:removes_at_99", "fn_kwargs": {"path": str(removed)}}
    write_jsonl(tmp_path / "in/0.jsonl", rows(0, 4))
    runner = BatchRunner(a_spec(tmp_path, capability=capability))
    assert runner.run().ok
    write_jsonl(tmp_path / "in/1.jsonl", rows(99, 1))
    return runner


def test_a_part_that_is_removed_while_a_run_goes_on_is_not_declared_complete(tmp_path):
    """`_SUCCESS` over a sink without its rows would be believed by every reader."""
    runner = a_run(tmp_path, tmp_path / "out/part-00000.jsonl")

    with pytest.raises(
        DamagedOutputError, match=r"(?s)part-00000\.jsonl: the part is gone.*--repair"
    ):
        runner.run()

    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.parametrize("removed", ["out", "out/_checkpoint", "out/_checkpoint/lease"])
def test_a_driver_whose_lease_is_removed_declares_nothing(tmp_path, removed):
    """It would make the folders again, and call a checkpoint complete that knows of nothing else."""
    runner = a_run(tmp_path, tmp_path / removed)

    with pytest.raises((LeaseHeldError, DamagedOutputError)):
        runner.run()

    assert not (tmp_path / "out/_SUCCESS").exists()


def test_an_option_that_hides_its_value_is_no_other_ones():
    """Two secrets print alike: a storage with one user's must not be handed to another."""
    from pydantic import SecretStr

    one, other = (
        open_storage("s3://bucket/x", storage_options={"secret": SecretStr(word)}) for word in "ab"
    )

    assert one is not other


def test_options_that_the_caller_changes_later_are_those_of_before():
    """A storage opens its connection with its first request: with what it was asked for."""
    options = {"key": "k", "client_kwargs": {"region_name": "a"}}
    one = open_storage("s3://bucket/x", storage_options=options)
    options["client_kwargs"]["region_name"] = "b"

    other = open_storage("s3://bucket/x", storage_options={**options})

    assert other is not one
    assert one is open_storage(
        "s3://bucket/x", storage_options={"key": "k", "client_kwargs": {"region_name": "a"}}
    )
