"""Every field of a spec, with a dozen odd values: each is refused with its name, or runs; never a traceback."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from batchrunner.cli.main import _run
from builders import rows, write_jsonl

WRONG = [
    None,
    "",
    "x",
    "5 parsecs",
    -1,
    1.5,
    10**30,
    True,
    "\x1b[2J",
    ["x", [1]],
    {"a": {"b": []}},
    {},
]
FIELDS = """
version name capability.mode capability.inputs capability.fn_kwargs capability.fn_constructor_kwargs
capability.version capability.files source.uri source.format source.columns source.partitioning
source.limit source.shard.rows source.shard.bytes source.shard.files source.storage_options sink.uri
sink.format sink.compression sink.schema sink.schema.id sink.storage_options checkpoint_dir resume
execution.batch_size execution.batch_format execution.concurrency execution.num_cpus execution.num_gpus
execution.memory execution.accelerator_type execution.resources.a execution.max_runtime
execution.max_concurrency execution.rate_limit.requests execution.rate_limit.in_flight
execution.prices.a execution.max_cost capability.usage errors.on_row_error errors.max_row_errors errors.retry.max_attempts
errors.batch_timeout ray.address ray.runtime_env analytics_store tags unsafe_single_writer
""".split()  # noqa: SIM905 - a list of 49 names fills a page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("specs")


def a_spec_with(field, value):
    spec = {
        "capability": {"target": "capabilities:echo"},
        "source": {"uri": "in"},
        "sink": {"uri": "out"},
        "execution": {"engine": "local"},
    }
    *above, last = field.split(".")
    section = spec
    for name in above:
        section = section.setdefault(name, {})
    section[last] = value
    return yaml.safe_dump(spec)


@pytest.mark.parametrize("field", FIELDS)
def test_a_wrong_value_is_refused_before_anything_runs(field, folder, monkeypatch, capsys):
    """What `validate` lets pass, `run` must not call an internal error, with the checkpoint made."""
    monkeypatch.chdir(folder)
    # Only the call itself can say which arguments it takes.
    codes = {0, 1, 2, 3} if field == "capability.fn_kwargs" else {0, 2, 3}
    for value in WRONG:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_jsonl(folder / "in/a.jsonl", rows(0, 3))
        (folder / "spec.yaml").write_text(a_spec_with(field, value))
        for command in ("validate", "plan", "run"):
            code = _run([command, "spec.yaml"])
            said = capsys.readouterr().err
            assert code in codes, (command, value, said)
            assert "internal error" not in said, (command, value)
            assert "Traceback" not in said, (command, value)
            if code:
                break


@pytest.mark.parametrize("source_format", ["jsonl", "frames_format:Frames"])
def test_row_groups_of_a_format_without_them_are_refused_by_validate(
    source_format, folder, monkeypatch, capsys
):
    """With its line, and not only by the run."""
    monkeypatch.chdir(folder)
    source = {"uri": "in", "format": source_format, "shard": {"row_groups": 2}}
    (folder / "spec.yaml").write_text(a_spec_with("source", source))

    assert _run(["validate", "spec.yaml"]) == 2
    said = capsys.readouterr().err
    assert f"row_groups: {source_format} has no row groups" in said
    assert re.search(r"spec\.yaml:\d+:\d+", said)
