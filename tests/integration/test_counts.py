"""What a small run asks of a disk and of a bucket: a number that grows is a promise paid for twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner.storage import open_storage

TESTS = Path(__file__).parents[1]


def counted(root, **options):
    """Run over what is in `root/in`, and return what that took."""
    spec = {
        "capability": "capabilities:double",
        "source": {"uri": f"{root}/in", "storage_options": options},
        "sink": {"uri": f"{root}/out", "storage_options": options},
        "execution": {"engine": "local"},
    }
    done = subprocess.run(
        [sys.executable, "counted_run.py", json.dumps(spec)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def a_file(root, name, **options):
    storage = open_storage(root, storage_options=options)
    storage.put(f"in/{name}.jsonl", b'{"id": 1, "text": "a"}\n')


@pytest.fixture
def runs_on_disk(tmp_path):
    """A run over one file, and one that goes on with a second file."""
    a_file(str(tmp_path), "0")
    first = counted(tmp_path)
    a_file(str(tmp_path), "1")
    return first, counted(tmp_path)


NEW_FOLDERS = ["out", "_checkpoint", "lease", "plan", "attempts", "sentinels", "sentinel_index"]
NEW_FOLDERS += ["sessions"]
COMMIT = [
    "plan",
    "mark",
    "part",
    "its intent",
    "sentinel",
    "sentinel index",
    "manifest",
    "_SUCCESS",
]
SESSION = ["lease claimed", "events", "lease released"]
REMOVED = ["mark"]


def test_a_first_run_syncs_each_file_and_each_name_once(runs_on_disk):
    """On a disk that spins an fsync costs some 10 ms: each is there for one line of the lists above."""
    first, _ = runs_on_disk
    written = [*SESSION, "owner", "run", *COMMIT]

    assert first["files"] == len(written)
    assert first["folders"] == len(NEW_FOLDERS) + len(written) + len(REMOVED)


def test_a_run_that_goes_on_syncs_the_folders_that_are_there_together(runs_on_disk):
    """One sync of the checkpoint's root for all of them; the sink's is synced for the names in it."""
    _, grown = runs_on_disk
    written = [*SESSION, *COMMIT]

    assert grown["files"] == len(written)
    removed = [*REMOVED, "_SUCCESS of before", "manifest of before"]

    assert grown["folders"] == len(["_checkpoint"]) + len(written) + len(removed)


def test_a_run_opens_each_place_once(runs_on_disk):
    """The files of the source, whose folder is walked on a disk, the sink and the checkpoint."""
    assert [run["storages"] for run in runs_on_disk] == [3, 3]


PROBE_IN_PARTS = {
    "CreateMultipartUpload": 1,
    "UploadPart": 1,
    "CompleteMultipartUpload": 1,
    "AbortMultipartUpload": 1,
}


@pytest.mark.s3
def test_a_small_run_in_a_bucket_makes_few_requests(seaweedfs, prefix):
    """Each takes some 20 ms, and some of them money; a bucket is proven once for sink and checkpoint."""
    root, options = f"s3://{seaweedfs.bucket}/{prefix}", seaweedfs.storage_options
    a_file(root, "0", **options)

    first = counted(root, **options)
    a_file(root, "1", **options)
    grown = counted(root, **options)

    assert first == {
        "storages": 4,
        "ListObjectsV2": 19,
        "ListMultipartUploads": 4,
        "GetObject": 1,
        "HeadObject": 2,
        "PutObject": 14,
        "DeleteObjects": 2,
        **PROBE_IN_PARTS,
    }
    assert grown == {
        "storages": 4,
        "ListObjectsV2": 33,
        "ListMultipartUploads": 4,
        "GetObject": 10,
        "HeadObject": 5,
        "PutObject": 12,
        "DeleteObjects": 4,
        **PROBE_IN_PARTS,
    }
