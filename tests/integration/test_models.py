"""Runs with the models that are shipped: what goes in, comes out beside what the model says of it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import magika
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import onnx_models
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.errors import CapabilityImportError
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows_out, write_jsonl
from command import batchrunner
from pictures import png

NUMPY = {"engine": "local", "batch_format": "numpy", "batch_size": 64}
ROWS = 500
NULL, SHORT = 123, 456


def vectors(folder):
    """A vector for each of five hundred rows, in two files; of one a number is null, one is short."""
    numbers = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
    lists = numbers.tolist()
    lists[NULL][1], lists[SHORT] = None, [1.0]
    kept = pa.array([f"row {n}" for n in range(ROWS)]).dictionary_encode()
    table = pa.table(
        {"id": np.arange(ROWS), "name": kept, "x": pa.array(lists, pa.list_(pa.float32()))}
    )
    (folder / "in").mkdir()
    for part in (0, 1):
        pq.write_table(table.slice(part * ROWS // 2, ROWS // 2), folder / f"in/{part}.parquet")
    return numbers


def model_of(path, **changes):
    return {
        "target": "batchrunner.capabilities.onnx:Model",
        "one_to_one": True,
        "files": [path],
        "fn_constructor_kwargs": {"model": path, **changes},
    }


@pytest.mark.parametrize("rows", ["n", 8])
@pytest.mark.parametrize("sink", ["parquet", "jsonl"])
def test_a_model_adds_its_outputs_to_each_row(tmp_path, sink, rows):
    """In batches over both files; what the model cannot take is a dead letter with its place."""
    x = vectors(tmp_path)
    spec = a_spec(
        tmp_path,
        capability=model_of(onnx_models.linear(tmp_path / "m.onnx", rows=rows)),
        sink={"uri": str(tmp_path / "out"), "format": sink},
        execution=NUMPY,
        errors={"max_row_errors": 2},
    )

    report = BatchRunner(spec).run()

    weights = np.arange(6, dtype=np.float32).reshape(3, 2)
    expected = x @ weights + 1
    found = rows_out(tmp_path / "out")
    good = [n for n in range(ROWS) if n not in (NULL, SHORT)]
    assert (report.ok, report.rows_failed) == (True, 2)
    assert [(row["id"], row["name"]) for row in found] == [(n, f"row {n}") for n in good]
    assert [row["x"] for row in found] == x[good].tolist()
    np.testing.assert_allclose([row["scores"] for row in found], expected[good], rtol=1e-5)
    assert [row["best"] for row in found] == expected[good].argmax(axis=1).tolist()
    letters = list(read_dead_letters(Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))))
    assert [
        (letter["source"].rpartition("/")[2], letter["at"], letter["message"]) for letter in letters
    ] == [
        ("0.parquet", NULL, "column 'x' has a null, or no value of type float32"),
        ("1.parquet", SHORT - ROWS // 2, "column 'x' has a value of 1 elements; the model takes 3"),
    ]


def test_a_library_that_is_not_there_is_named_with_what_installs_it(tmp_path, monkeypatch):
    """Before any row is tried, and without a traceback."""
    vectors(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    capability = model_of(onnx_models.linear(tmp_path / "m.onnx"))
    spec = a_spec(tmp_path, capability=capability, execution=NUMPY)

    with pytest.raises(CapabilityImportError) as raised:
        BatchRunner(spec).run()

    assert str(raised.value) == (
        "the module 'onnxruntime' is not installed where the worker runs: pip install "
        "'batchrunner[onnx]'; on a cluster, have ray.runtime_env do so"
    )


CONTENT = """
def features(row):
    first = row["bytes"][:4096].lstrip()[:1024]
    last = row["bytes"][-4096:].rstrip()[-1024:]
    filling = [256] * (2048 - len(first) - len(last))
    return {"path": row["path"], "bytes": [*first, *filling, *last]}
"""


def test_a_real_model_behind_a_stage_on_cpus_says_what_its_own_library_says(tmp_path):
    """Magika's, of 3 MB: its numbers for each file are those of one file at a time, in any batch."""
    library = magika.Magika()
    home = Path(magika.__file__).parent / "models/standard_v3_3"
    names = json.loads((home / "config.min.json").read_text())["target_labels_space"]
    (tmp_path / "content.py").write_text(CONTENT)
    (tmp_path / "in").mkdir()
    for number in range(60):
        text = f"import os\n\n\ndef number_{number}():\n    return {number}\n" * (number + 5)
        content = png(number) if number % 2 else text.encode()
        (tmp_path / f"in/{number:02}").write_bytes(content)
    model = str(home / "model.onnx")
    stage = model_of(model, outputs={"target_label": "scores"}, keep=["path"])
    features = {"target": "content:features", "mode": "row"}
    spec = {
        "capability": [features, {**stage, "batch_format": "numpy", "batch_size": 16}],
        "source": {"uri": str(tmp_path / "in"), "format": "files"},
        "sink": {"uri": str(tmp_path / "out"), "format": "parquet"},
        "execution": {"engine": "local"},
    }
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    found = rows_out(tmp_path / "out")
    assert [Path(row["path"]).name for row in found] == [f"{number:02}" for number in range(60)]
    for row in found:
        expected = library.identify_path(row["path"])
        best = int(np.argmax(row["scores"]))
        assert names[best] == expected.dl.label
        assert row["scores"][best] == pytest.approx(expected.score, rel=1e-4)


def lost(row):
    if row["id"] < 50:
        return row
    raise CapabilityImportError("the engine died, and cannot be built again: no GPU is left")


async def lost_later(row):
    return lost(row)


@pytest.mark.parametrize("capability", [lost, lost_later])
def test_an_engine_that_is_lost_for_good_ends_the_run(tmp_path, capability):
    """Instead of each row in turn, after all its attempts."""
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": number} for number in range(100)])
    spec = a_spec(
        tmp_path,
        capability={"target": "anything:at_all", "mode": "row"},
        errors={"max_row_errors": 100},
    )

    with pytest.raises(CapabilityImportError, match="no GPU is left"):
        BatchRunner(spec, capability=capability).run()


def test_the_versions_of_its_libraries_are_kept_with_the_session(tmp_path):
    """They decide the output as the user's own code does, and are compared by the next session."""
    vectors(tmp_path)
    capability = model_of(onnx_models.linear(tmp_path / "m.onnx"))

    BatchRunner(a_spec(tmp_path, capability=capability, execution=NUMPY)).run()

    [log] = (tmp_path / "out/_checkpoint/sessions").glob("*.jsonl")
    events = map(json.loads, log.read_text().splitlines())
    [kept] = [event["versions"] for event in events if event["action"] == "packages_found"]
    assert kept["onnxruntime"] == version("onnxruntime")
    assert {"batchrunner", "numpy", "python"} < kept.keys()


@pytest.mark.long
def test_a_batch_that_memory_does_not_hold_is_halved_by_what_onnxruntime_says(tmp_path):
    """A real one: its process may take 500 MiB, and 64 rows take 512."""
    (tmp_path / "in").mkdir()
    numbers = pa.array(range(128), pa.float32())
    pq.write_table(pa.table({"x": numbers}), tmp_path / "in/a.parquet")
    spec = a_spec(
        tmp_path,
        capability=model_of(onnx_models.wide(tmp_path / "m.onnx", width=1 << 21)),
        execution={**NUMPY, "memory": "500MiB"},
        errors={"batch_timeout": "10m"},  # in a process of its own, whose memory is bounded
    )

    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 128, 0)
    assert [row["most"] for row in rows_out(tmp_path / "out")] == numbers.to_pylist()
