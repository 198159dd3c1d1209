"""Which device a model runs on, and what to do if its memory does not hold the model."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import is_out_of_memory

_log = logging.getLogger(__name__)


def best_device() -> str:
    """Return torch's name of the first of these that this process sees: a GPU, Apple's GPU, the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def note_device(model: str, device: str) -> None:
    """Log on which *device* a model runs; warn if it leaves the GPU idle that Ray gave this worker."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if given not in ("", "-1") and device.lower().startswith("cpu"):
        _log.warning(
            "%s runs on the CPU, although this worker has GPU %s: install the build of the library that is "
            "made for its driver, or leave execution.num_gpus out",
            model,
            given,
        )
    else:
        _log.info("%s runs on %s", model, device)


@contextmanager
def loading(model: str) -> Iterator[None]:
    """Say what to do if memory runs out inside the block, which loads *model*, a file, a folder or a name.

    Raises:
        CapabilityImportError: Memory ran out. To try again would not help.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise CapabilityImportError(
            f"{model}{_size(model)} does not fit into memory{_gpu_memory()}: choose a larger GPU "
            "(execution.accelerator_type), give each worker a whole one (execution.num_gpus: 1), or load the "
            f"weights in a smaller type (dtype: float16). It raised {describe(error)}"
        ) from error


def _size(model: str) -> str:
    """Return how large the files of *model* are, if they are on this disk."""
    nbytes = sum(
        file.stat().st_size for file in [Path(model), *Path(model).rglob("*")] if file.is_file()
    )
    return f" ({nbytes / 2**30:.3g} GiB)" if nbytes else ""


def _gpu_memory() -> str:
    """Return what the GPU has, if torch is loaded and sees one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return f": {free / 2**30:.3g} of {total / 2**30:.3g} GiB are free on {name}"
