"""The driver is killed, the code is mended, and `--fresh` runs beside the workers of the dead."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from builders import a_source, rows_out
from command import ENVIRONMENT, a_spec_file, batchrunner, start

pytestmark = [pytest.mark.soak, pytest.mark.ray]

SHARDS, ROUNDS = 200, 6
CODE = """
import time

def work(rows):
    time.sleep(0.02)
    return [{{**row, "by": "{version}"}} for row in rows]
"""

READY = """
import sys
import ray.data
from batchrunner import BatchRunner, BatchSpec
from batchrunner.execute import on_ray

spec = BatchSpec.from_yaml("spec.yaml")
print("ready", flush=True)
sys.stdin.readline()
sys.exit(BatchRunner(spec).run(fresh=True).exit_code)
"""


def a_driver_that_waits(folder):
    """All imported, so that it begins while the workers of the dead are alive."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", READY],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout.readline() == "ready\n"
    return waiting


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_nothing_of_the_old_code_is_left_when_fresh_follows_a_kill_at_once(tmp_path, seed):
    """Workers outlive their driver by one to three seconds, and commit."""
    dice = random.Random(seed)
    a_source(tmp_path / "in", shards=SHARDS)
    source = {"uri": "in", "shard": {"files": 1}}
    a_spec_file(tmp_path, source=source, capability="caps:work", execution={"engine": "ray"})
    (tmp_path / "caps.py").write_text(CODE.format(version="old"))
    with a_driver_that_waits(tmp_path) as fresh, start("run", "spec.yaml", cwd=tmp_path) as process:
        aim = dice.randint(1, SHARDS // 2)
        while len(list(tmp_path.glob("out/_checkpoint/sentinels/*.json"))) < aim:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        (tmp_path / "caps.py").write_text(CODE.format(version="new"))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        process.send_signal(signal.SIGKILL)
        fresh.communicate("go\n", timeout=300)

    assert fresh.returncode == 0
    found = rows_out(tmp_path / "out")
    assert {row["by"] for row in found} == {"new"}
    assert [row["id"] for row in found] == list(range(4 * SHARDS))
    assert batchrunner("verify", "spec.yaml", cwd=tmp_path).returncode == 0
