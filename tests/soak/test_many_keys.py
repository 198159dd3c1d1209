"""Keys of millions of rows, compared in bounded memory: `make soak`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import damage
from batchrunner import BatchRunner
from builders import a_spec
from command import ENVIRONMENT

pytestmark = pytest.mark.soak

ROWS, FILES = 2_000_000, 8
VERIFY = """
import resource, sys
from batchrunner import BatchSpec
from batchrunner.verify import Checks, key_table, verify
key_table.MEMORY = "150MB"
found = verify(BatchSpec.from_yaml(sys.argv[1]), checks=Checks(keys=("id",)))
print(*found.notes, *(f"{f.kind} {f.why}" for f in found.findings), sep="\\n")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


def test_two_million_keys_are_compared_in_less_memory_than_they_take(tmp_path):
    """A lost row and a doubled one among them are found; the keys wait on disk, not in memory."""
    for number in range(FILES):
        with (tmp_path / f"{number}.jsonl").open("w") as file:
            for n in range(number, ROWS, FILES):
                file.write(f'{{"id": "{n:064x}", "n": {n}}}\n')
    spec = a_spec(tmp_path, source=str(tmp_path / "*.jsonl"), capability="capabilities:echo")
    assert BatchRunner(spec).run().ok
    damage.rewritten(tmp_path / "out", 3, lambda some: [some[0], some[0], *some[2:]])
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({"capability": "capabilities:echo", **_places(tmp_path)}))

    done = subprocess.run(
        [sys.executable, "-c", VERIFY, str(path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert len(done.stdout.splitlines()) == 4, done.stdout
    notes, missing, doubled, megabytes = done.stdout.splitlines()
    assert notes.startswith(f"keys (id): {ROWS:,} in the source, {ROWS:,} in the output; 1 missing")
    assert (missing.split()[0], doubled.split()[0]) == ("key_missing", "key_doubled")
    assert int(megabytes) < 600, "both sides are 280 MB of keys, and twice that as rows of a table"


def _places(folder):
    return {"source": str(folder / "*.jsonl"), "sink": str(folder / "out")}
