"""Memory that does not hold a batch costs no row, and not a failed call for each batch that follows."""

from __future__ import annotations

import logging
import weakref

import pytest

from batchrunner import BatchRunner
from batchrunner.user_code import CallRaisedError, is_out_of_memory
from builders import a_source, a_spec, rows_out

LOCAL = {"engine": "local", "batch_format": "rows", "batch_size": 64}
MOST = 20
"""Rows that the memory of these tests holds."""


STUBBORN, TRIES = 700, 2


class Activations:
    """What a call holds while it computes."""


class Model:
    """Fails above `MOST` rows, as a GPU does; notes the sizes of its calls, and what failed ones hold."""

    def __init__(self):
        self.sizes, self.failed, self.held, self.tries = [], [], 0, 0

    def __call__(self, rows):
        self.held += sum(activations() is not None for activations in self.failed)
        self.sizes.append(len(rows))
        activations = Activations()
        if len(rows) > MOST:
            self.failed.append(weakref.ref(activations))
            try:
                self.allocate(activations)
            except RuntimeError as error:
                raise ValueError("the kernel failed") from error
        self.fail_first_attempt(rows)
        return rows

    def fail_first_attempt(self, rows):
        """Fail a shard once, whose second attempt is one of a new group of shards."""
        ids = [row["id"] for row in rows]
        self.tries += ids == [STUBBORN]
        if STUBBORN in ids and self.tries <= TRIES:
            raise TimeoutError

    def allocate(self, activations):
        cycle = [activations]
        cycle.append(cycle)  # as models have them: only the garbage collector frees it
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Told(Model):
    """The same, of a library that says so in the last error."""

    def __call__(self, rows):
        try:
            return super().__call__(rows)
        except ValueError as error:
            raise RuntimeError(f"CUDA error: {error.__cause__}") from error


class Later(Told):
    async def __call__(self, rows):
        return super().__call__(rows)


@pytest.mark.parametrize("kind", [Told, Later])
def test_a_worker_goes_on_with_what_its_memory_holds(tmp_path, caplog, kind):
    """Over all its shards and attempts. What a failed call held is free before the next one, which needs the room."""
    a_source(tmp_path / "in", shards=12, rows_per_shard=64)
    model = kind()
    spec = a_spec(
        tmp_path,
        source={"uri": str(tmp_path / "in"), "shard": {"files": 1}},
        execution={**LOCAL, "max_concurrency": 1},
        errors={"on_row_error": "fail", "retry": {"max_attempts": TRIES}},
    )

    with caplog.at_level(logging.WARNING, logger="batchrunner"):
        report = BatchRunner(spec, capability=model).run()

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 768, 0)
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(768))
    assert [size for size in model.sizes if size > MOST] == [64, 32]
    assert model.tries == TRIES + 1  # of two attempts
    assert model.held == 0
    told = [r.getMessage() for r in caplog.records if "execution.batch_size" in r.getMessage()]
    assert [text.rpartition(": ")[2] for text in told] == ["16"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        CallRaisedError("torch.OutOfMemoryError", "", ""),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 400 bytes."),
        RuntimeError("BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1073741824"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1048576 bytes."),
        RuntimeError("OOM when allocating tensor with shape[64,1024]"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=repr,
)  # fmt: skip
def test_the_words_of_libraries_for_memory_that_ran_out_are_known(error):
    """Each is the message of a library: of torch, cuBLAS, onnxruntime, XLA, TensorFlow, C++."""
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("429 RESOURCE_EXHAUSTED: quota"), ValueError("no memory of it")]
)
def test_other_words_are_not_taken_for_memory(error):
    """A service whose quota is used up needs time, and not smaller batches."""
    assert not is_out_of_memory(error)


def test_a_stage_goes_on_with_what_its_memory_holds(tmp_path, caplog):
    """Its call is halved where it failed, in room that the failed one has left."""
    a_source(tmp_path / "in", shards=4, rows_per_shard=64)
    model = Told()
    model.tries = TRIES + 1  # no row is stubborn
    stage = {"target": "anything:at_all", "one_to_one": True, "batch_size": 64}
    spec = a_spec(tmp_path, capability=[stage], execution={"engine": "local"})

    with caplog.at_level(logging.WARNING, logger="batchrunner.worker.room"):
        report = BatchRunner(spec, capability=[model]).run()

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 256, 0)
    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(256))
    assert max(model.sizes) == 64
    assert model.held == 0
    told = [r.getMessage() for r in caplog.records if r.name == "batchrunner.worker.room"]
    assert told[-1].endswith("set batch_size of the stage 'at_all': 16")
    assert len(told) <= 2  # a half that memory holds may be told before one that it does not
