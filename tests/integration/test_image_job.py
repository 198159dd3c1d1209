"""A real job over a folder of images on S3, with a real model: `specs/images-s3.yaml`, killed and resumed."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from buckets import Bucket
from command import batchrunner
from killing import killed_with_parts
from pictures import png

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs/images-s3.yaml"
CODE = "import os\n\n\ndef main():\n    print(os.environ)\n\n\nif __name__ == '__main__':\n    main()\n"
PICTURES = 40


@pytest.fixture
def images(seaweedfs, prefix):
    """A folder of pictures in a bucket, one file that is none, and one that is empty."""
    bucket = Bucket(seaweedfs, prefix)
    for number in range(PICTURES):
        bucket.put(f"images/{number // 20}/{number:03}.png", png(number))
    bucket.put("images/a-script.jpg", CODE.encode())
    bucket.put("images/empty.png", b"")
    yield bucket
    bucket.close()


def environment(server, bucket):
    return {
        "BUCKET": bucket.uri.removeprefix("s3://"),
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.key,
        "AWS_SECRET_ACCESS_KEY": server.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def rows_of(bucket):
    parts = [bucket.get(key) for key in sorted(bucket.listed("content-types/part-"))]
    return [row for part in parts for row in pq.read_table(io.BytesIO(part)).to_pylist()]


@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.s3
def test_a_model_names_the_types_of_images_on_s3_whatever_is_killed(
    tmp_path, seaweedfs, images, engine
):
    """Each file once, by its content and not by its name; a replay gives the same."""
    chosen = ["--set", f"execution.engine={engine}", "--set", "source.shard.files=1"]
    where = environment(seaweedfs, images)

    before = killed_with_parts(
        tmp_path,
        *[SPEC, *chosen, "--set", "execution.batch_size=1"],
        count=lambda: len(images.listed("content-types/part-")),
        **where,
    )
    done = batchrunner("run", SPEC, *chosen, cwd=tmp_path, **where)
    checked = batchrunner(
        "verify", SPEC, *chosen, "--key", "path", "--replay", "0.05", cwd=tmp_path, **where
    )
    rows = {Path(row["path"]).name: row for row in rows_of(images)}

    assert 3 <= before < PICTURES
    assert (done.returncode, checked.returncode) == (0, 0), done.stderr + checked.stdout
    assert len(rows_of(images)) == len(rows) == PICTURES + 2
    labels = {name: row["label"] for name, row in rows.items()}
    assert labels == {
        **{f"{number:03}.png": "png" for number in range(PICTURES)},
        "a-script.jpg": "python",
        "empty.png": "empty",
    }
    assert {name for name, row in rows.items() if not row["name_agrees"]} == {
        "a-script.jpg", "empty.png",
    }  # fmt: skip
    assert all(row["modified"].year >= 2020 for row in rows.values())
