"""The command line in a process of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

TESTS = Path(__file__).parent

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def start(
    *arguments: object, cwd: Path, group: bool = False, **environment: str
) -> subprocess.Popen[str]:
    """Start `batchrunner` with *arguments* in folder *cwd*; in a process *group* of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "batchrunner", *map(str, arguments)],
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if group else None,
    )


def batchrunner(
    *arguments: object, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    with start(*arguments, cwd=cwd, **environment) as process:
        stdout, stderr = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def a_spec_file(folder: Path, **changes: object) -> Path:
    """`spec.yaml` in *folder*, over `in/` into `out/`, on the local engine."""
    import yaml

    fields = {
        "capability": "capabilities:echo",
        "source": "in",
        "sink": "out",
        "execution": {"engine": "local"},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({**fields, **changes}))
    return path
