"""The product: kill -9 at any moment, and the output is that of the undisturbed run."""

from __future__ import annotations

import shutil

import pytest

from buckets import Bucket
from builders import rows, write_jsonl
from chaos import DRIVER, RAYLET, WORKER, BucketOutput, LocalOutput, survive
from command import a_spec_file, batchrunner

FILES, ROWS = 60, 40


def undisturbed(folder, **spec):
    """Run a job to its end and return the hashes of its parts."""
    for number in range(FILES):
        write_jsonl(folder / f"in/{number:03d}.jsonl", rows(number * ROWS, ROWS))
    a_spec_file(folder, **spec)
    done = batchrunner("run", "spec.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    expected = LocalOutput(folder).parts()
    shutil.rmtree(folder / "out")
    return expected


@pytest.mark.long  # `make test` kills the driver of a job in a bucket, below
def test_a_driver_killed_again_and_again_ends_with_the_same_output(tmp_path):
    """On the local engine, where the driver does the work itself: the cheapest deaths."""
    expected = undisturbed(tmp_path, capability="capabilities:slow")

    story = survive(tmp_path, LocalOutput(tmp_path), [DRIVER] * 6, shards=FILES, seed=1)

    assert expected == LocalOutput(tmp_path).parts()
    assert story.touched == set()
    assert story.killed[DRIVER] >= 4
    assert story.kept > 0


@pytest.mark.ray
def test_drivers_workers_and_raylets_killed_on_ray_cost_nothing(tmp_path):
    """Zombies of the driver before go on writing for seconds; the commit protocol minds that."""
    spec = {"capability": "capabilities:slow", "execution": {"engine": "ray", "batch_size": 20}}
    expected = undisturbed(tmp_path, **spec)

    victims = [DRIVER, WORKER, RAYLET]
    story = survive(tmp_path, LocalOutput(tmp_path), victims, shards=FILES, seed=2)

    assert expected == LocalOutput(tmp_path).parts()
    assert story.touched == set()
    assert all(story.killed[victim] for victim in victims)


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.smoke  # Ray and S3 in one: what `make test` shows of both
def test_a_job_in_a_bucket_survives_too(tmp_path, seaweedfs, prefix):
    """From S3 into S3, by actors, with a class that is built once for each."""
    bucket = Bucket(seaweedfs, prefix)
    for number in range(FILES):
        bucket.put_rows(f"in/{number:03d}.jsonl", rows(number * ROWS, ROWS))
    options = {"storage_options": bucket.storage_options}
    a_spec_file(
        tmp_path,
        capability="capabilities:SlowModel",
        source={"uri": f"{bucket.uri}/in", **options},
        sink={"uri": f"{bucket.uri}/out", **options},
        execution={"engine": "ray"},
    )

    story = survive(tmp_path, BucketOutput(bucket), [DRIVER, WORKER], shards=FILES, seed=4)

    assert [row["id"] for row in bucket.rows_out()] == list(range(FILES * ROWS))
    assert len(bucket.listed("out/part-")) == FILES
    assert story.touched == set()
    assert sum(story.killed.values()) == 2
    bucket.close()
