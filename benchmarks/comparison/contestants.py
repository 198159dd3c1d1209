"""Who takes part, with the words of their documentation: which line is started, and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

OURS, THEIRS = "ours", "theirs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One way to do the job.

    Attributes:
        name: In tables, and in `by_hand.py`.
        line: What is started, behind `python`.
        files: Of `jobs/`, beside `work.py`.
        settings: What was set that is no default, and why.
        python: OURS has batchrunner and Ray; THEIRS is built from `requirements.txt`.
        format: Of the source.
        fixed: The line after a bad row and a fix of the code, where it is not the same line.
        more: The line after a file was added, where it is not the same line.
        tolerant: The line that asks to go on after a bad row, if there is one.
        is_table: Whether the output is a Delta table, and not a folder of files.
        scenarios: Those that it takes part in; by default, all.
        packages: Whose versions decide what it does.
        in_summary: Whether it has a column in the first table of the page.
    """

    name: str
    line: str
    files: str
    settings: str
    python: Literal["ours", "theirs"] = "ours"
    format: Literal["jsonl", "parquet"] = "jsonl"
    fixed: str = ""
    more: str = ""
    tolerant: str = ""
    is_table: bool = False
    scenarios: Sequence[str] = ()
    packages: Sequence[str] = ("ray",)
    in_summary: bool = False


_OF_APPENDERS = ("nothing", "again", "bad row", "bad row, fixed", "killed")

CONTESTANTS = (
    Contestant(
        name="batchrunner",
        line="-m batchrunner run spec.yaml",
        files="caps.py spec.yaml",
        settings="Defaults, on Ray.",
        fixed="-m batchrunner retry --rows spec.yaml",
        packages=("batchrunner", "ray"),
        in_summary=True,
    ),
    Contestant(
        name="Ray Data",
        line="ray_data.py",
        files="ray_data.py",
        settings="Defaults: read_json, map_batches, write_json.",
        scenarios=_OF_APPENDERS,
    ),
    Contestant(
        name="Ray Data, overwrite",
        line="ray_data.py overwrite",
        files="ray_data.py",
        settings="write_json(mode='overwrite'), so that a second run replaces the first one's output.",
        tolerant="ray_data.py overwrite tolerant",
        in_summary=True,
    ),
    Contestant(
        name="Ray Data, CheckpointConfig",
        line="ray_data_checkpoint.py json",
        files="ray_data.py ray_data_checkpoint.py",
        settings="With delete_checkpoint_on_success=False, so that a finished run stays finished.",
        tolerant="ray_data_checkpoint.py json tolerant",
        in_summary=True,
    ),
    Contestant(
        name="Ray Data, CheckpointConfig, Parquet",
        line="ray_data_checkpoint.py",
        files="ray_data.py ray_data_checkpoint.py",
        settings="The same over Parquet, with a block for each file, as a larger job has.",
        format="parquet",
        tolerant="ray_data_checkpoint.py tolerant",
    ),
    Contestant(
        name="datatrove",
        line="datatrove_job.py",
        files="datatrove_job.py",
        settings="LocalPipelineExecutor with 50 tasks and 2 workers.",
        python="theirs",
        packages=("datatrove",),
        in_summary=True,
    ),
    Contestant(
        name="Daft",
        line="daft_job.py",
        files="daft_job.py",
        settings="Defaults: read_json, a row-wise @daft.func, write_json; the native runner.",
        python="theirs",
        scenarios=_OF_APPENDERS,
        packages=("daft",),
    ),
    Contestant(
        name="Daft, overwrite",
        line="daft_job.py overwrite",
        files="daft_job.py",
        settings="write_json(write_mode='overwrite').",
        python="theirs",
        tolerant="daft_job.py overwrite tolerant",
        packages=("daft",),
    ),
    Contestant(
        name="Daft, checkpoint",
        line="daft_checkpoint.py first",
        files="daft_job.py daft_checkpoint.py",
        settings="On Ray, with CheckpointConfig(on='id') and an IdempotentCommit into a Delta table.",
        python="theirs",
        tolerant="daft_checkpoint.py tolerant first",
        more="daft_checkpoint.py second",
        is_table=True,
        packages=("daft", "ray", "deltalake", "pyiceberg"),
        in_summary=True,
    ),
)
