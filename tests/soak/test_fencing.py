"""The driver is killed, the code is mended, and `--fresh` runs beside the workers of the dead."""

from __future__ import annotations

import random
import shutil
import signal
import time

import pytest

from builders import a_source, rows_out
from command import a_spec_file, batchrunner, start

pytestmark = [pytest.mark.soak, pytest.mark.ray]

SHARDS, ROUNDS = 200, 6
CODE = """
import time

def work(rows):
    time.sleep(0.02)
    return [{{**row, "by": "{version}"}} for row in rows]
"""


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_nothing_of_the_old_code_is_left_when_fresh_follows_a_kill_at_once(tmp_path, seed):
    """Workers outlive their driver by one to three seconds, and commit."""
    dice = random.Random(seed)
    a_source(tmp_path / "in", shards=SHARDS)
    a_spec_file(tmp_path, capability="caps:work", execution={"engine": "ray"})
    (tmp_path / "caps.py").write_text(CODE.format(version="old"))
    with start("run", "spec.yaml", cwd=tmp_path) as process:
        aim = dice.randint(1, SHARDS // 2)
        while len(list(tmp_path.glob("out/_checkpoint/sentinels/*.json"))) < aim:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    (tmp_path / "caps.py").write_text(CODE.format(version="new"))
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)

    done = batchrunner("run", "--fresh", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    found = rows_out(tmp_path / "out")
    assert {row["by"] for row in found} == {"new"}
    assert [row["id"] for row in found] == list(range(4 * SHARDS))
    assert batchrunner("verify", "spec.yaml", cwd=tmp_path).returncode == 0
