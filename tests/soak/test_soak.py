"""2 million rows in 200 files, killed at random moments many times over: `make soak`."""

from __future__ import annotations

import json
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from buckets import Bucket
from chaos import DRIVER, RAYLET, WORKER, BucketOutput, LocalOutput, survive
from command import a_spec_file, batchrunner

pytestmark = [pytest.mark.soak, pytest.mark.ray]

FILES, ROWS = 200, 10_000
CAPABILITY = "capabilities:a_little_slow"  # or the job is over before it can be killed often
VICTIMS = [DRIVER, WORKER, RAYLET, DRIVER, WORKER, WORKER] * 4


@pytest.fixture(scope="module", params=["jsonl", "parquet"])
def source(request, tmp_path_factory):
    """The files, once for all tests of the format."""
    folder = tmp_path_factory.mktemp(request.param)
    dice = random.Random(7)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs"]
    for number in range(FILES):
        first = number * ROWS
        table = [
            {"id": first + n, "text": " ".join(dice.choices(words, k=30)), "score": dice.random()}
            for n in range(ROWS)
        ]
        path = folder / f"{number:03d}.{request.param}"
        if request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(table), path)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


def undisturbed(folder, output):
    done = batchrunner("run", "spec.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return output.parts()


def check(story, expected, output):
    assert expected == output.parts()
    assert story.touched == set()
    assert story.kept > 0
    assert sum(story.killed.values()) >= len(VICTIMS) // 2, story
    assert all(story.killed.values()), story


@pytest.mark.parametrize("seed", [1, 2])
def test_a_large_job_on_disk_survives(source, tmp_path, seed, record_property):
    """Each death costs the shards in flight, and no death a row."""
    execution = {"engine": "ray"}
    a_spec_file(tmp_path, source=str(source), capability=CAPABILITY, execution=execution)
    output = LocalOutput(tmp_path)
    expected = undisturbed(tmp_path, output)
    shutil.rmtree(tmp_path / "out")

    story = survive(tmp_path, output, VICTIMS, shards=FILES, seed=seed)

    record_property("story", str(story))
    check(story, expected, output)


@pytest.mark.s3
def test_a_large_job_in_a_bucket_survives(source, tmp_path, seaweedfs, prefix, record_property):
    """The same from S3 into S3."""
    bucket = Bucket(seaweedfs, prefix)
    for path in sorted(source.iterdir()):
        bucket.put(f"in/{path.name}", path.read_bytes())
    options = {"storage_options": bucket.storage_options}
    spec = {
        "capability": CAPABILITY,
        "source": {"uri": f"{bucket.uri}/in", **options},
        "sink": {"uri": f"{bucket.uri}/out", **options},
        "execution": {"engine": "ray"},
    }
    output = BucketOutput(bucket)
    a_spec_file(tmp_path, **spec)
    expected = undisturbed(tmp_path, output)
    for key in bucket.listed("out/"):
        bucket.delete(key)

    story = survive(tmp_path, output, VICTIMS, shards=FILES, seed=3)

    record_property("story", str(story))
    check(story, expected, output)
    bucket.close()
