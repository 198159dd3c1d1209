"""Where a model runs, and what is said if that is not where it should."""

from __future__ import annotations

import logging

import pytest

from batchrunner.capabilities.devices import loading, note_device
from batchrunner.errors import CapabilityImportError


@pytest.mark.parametrize(
    ("given", "device", "is_warned"),
    [
        ("0", "cpu", True),
        ("0,1", "CPUExecutionProvider", True),
        ("0", "cuda:0", False),
        ("0", "CUDAExecutionProvider", False),
        ("", "cpu", False),
        ("-1", "cpu", False),
        (None, "cpu", False),
    ],
)
def test_a_gpu_that_ray_gave_and_the_model_leaves_idle_is_warned_of(
    monkeypatch, caplog, given, device, is_warned
):
    """It costs as much as one that works; a library built for the CPU says nothing."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)

    with caplog.at_level(logging.INFO, logger="batchrunner"):
        note_device("m.onnx", device)

    [record] = caplog.records
    assert (record.levelno == logging.WARNING) is is_warned
    assert "m.onnx runs on" in record.getMessage()


def test_a_model_that_memory_does_not_hold_is_said_with_its_size_and_the_ways_out(tmp_path):
    """As an error that ends the run: another try would not help."""
    (tmp_path / "model/nested").mkdir(parents=True)
    for name in ("a.bin", "nested/b.bin"):
        with (tmp_path / "model" / name).open("wb") as file:
            file.truncate(3 << 29)  # without a block on disk
    model = str(tmp_path / "model")

    with pytest.raises(CapabilityImportError) as raised, loading(model):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    said = str(raised.value)
    assert said.startswith(f"{model} (3 GiB) does not fit into memory")
    assert "execution.accelerator_type" in said
    assert said.endswith("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_another_error_is_left_as_it_is():
    """Its own message says more."""
    with pytest.raises(OSError, match="no such model"), loading("org/model"):
        raise OSError("no such model")
