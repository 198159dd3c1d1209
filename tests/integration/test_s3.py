"""A batch from a bucket into a bucket: the same promises as on a disk."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.driver.source_files import list_source
from batchrunner.errors import (
    DamagedOutputError,
    InputChangedError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
    UnsafeStorageError,
)
from batchrunner.spec import SourceSpec
from batchrunner.storage import open_storage
from batchrunner.storage.s3.calls import S3Calls
from batchrunner.testing.fault_proxy import Fault, NetworkFaultKind
from batchrunner.verify import Checks, repair, verify
from batchrunner.views.garbage import Garbage
from buckets import Bucket
from builders import rows
from command import ENVIRONMENT

TESTS = Path(__file__).parents[1]
CHECKPOINT = "out/_checkpoint"
SENTINELS = 120


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.s3) for name in ("moto", "seaweedfs")])
def bucket(request, prefix):
    """A place in a bucket with three files in it, on a server in-process and on a real one."""
    bucket = Bucket(request.getfixturevalue(request.param), prefix)
    for number in range(3):
        bucket.put_rows(f"in/{number}.jsonl", rows(number * 4, 4))
    yield bucket
    bucket.close()


def a_spec(bucket, **changes):
    options = {"storage_options": bucket.storage_options}
    fields = {
        "capability": "capabilities:echo",
        "source": {"uri": f"{bucket.uri}/in", **options},
        "sink": {"uri": f"{bucket.uri}/out", **options, **changes.pop("sink", {})},
        "execution": {"engine": "local"},
    }
    return BatchSpec(**{**fields, **changes})


def test_the_output_of_a_run_that_has_not_finished_is_pointed_out_as_a_source(bucket):
    """Its parts are whole, and there are fewer of them than there will be."""
    BatchRunner(a_spec(bucket)).run()
    source = SourceSpec(uri=f"{bucket.uri}/out", storage_options=bucket.storage_options)
    assert list_source(source).notes == ()

    open_storage(source.uri, storage_options=bucket.storage_options).delete(["_SUCCESS"])

    said = f"source: {source.uri} is the output of a run that has not finished: 3 file(s) of it are"
    assert [note.startswith(said) for note in list_source(source).notes] == [True]


def test_rows_go_from_bucket_to_bucket_and_once(bucket):
    """The second run finds all done by listings alone, and touches nothing."""
    report = BatchRunner(a_spec(bucket)).run()
    before = bucket.listed()

    again = BatchRunner(a_spec(bucket)).run()

    assert (report.rows_out, report.shards_new) == (12, 3)
    assert (again.ok, again.shards_new) == (True, 0)
    assert bucket.rows_out() == rows(0, 12)
    assert before == bucket.listed()


def test_parquet_and_compressed_lines_work_in_buckets_too(bucket, tmp_path):
    """Ranged reads, whole reads, and parts of every kind."""
    table = pa.Table.from_pylist(rows(0, 5000))
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=500)
    bucket.put("parquet/x.parquet", (tmp_path / "x.parquet").read_bytes())
    source = {
        "uri": f"{bucket.uri}/parquet/*.parquet",
        "storage_options": bucket.storage_options,
        "shard": {"row_groups": 3},
    }
    sink = {"format": "jsonl", "compression": "gz"}

    BatchRunner(a_spec(bucket, source=source, sink=sink)).run()

    parts = sorted(bucket.listed("out/part-"))
    text = b"".join(
        pa.CompressedInputStream(pa.BufferReader(bucket.get(part)), "gzip").read() for part in parts
    )
    assert len(parts) == 4
    assert text.count(b"\n") == 5000


@pytest.mark.parametrize("ending", ["json", "arrow", "arrows"])
def test_json_and_arrow_are_cut_read_and_verified_in_buckets(bucket, ending):
    """By ranges that begin between two elements, or at a record batch."""
    table, out = pa.Table.from_pylist(rows(0, 5000)), pa.BufferOutputStream()
    new = pa.ipc.new_stream if ending == "arrows" else pa.ipc.new_file
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    data = json.dumps(rows(0, 5000)).encode() if ending == "json" else out.getvalue().to_pybytes()
    bucket.put(f"tree/x.{ending}", data)
    spec = a_spec(
        bucket,
        source={
            "uri": f"{bucket.uri}/tree",
            "storage_options": bucket.storage_options,
            "shard": {"rows": 1300},
        },
        sink={"format": "jsonl"},
    )

    assert BatchRunner(spec).run().ok
    parts = sorted(bucket.listed("out/part-"))
    lines = b"".join(map(bucket.get, parts)).splitlines()
    assert [json.loads(line) for line in lines] == rows(0, 5000)
    assert len(parts) == 4
    assert verify(spec, checks=Checks(keys=("id",))).ok


@pytest.mark.parametrize("name", ["csv", "csv.bz2", "txt"])
def test_csv_and_text_are_cut_read_and_verified_in_buckets(bucket, name):
    """By ranges that begin at a record; the header is read from the start of the file for each."""
    some = rows(0, 5000)
    text = {
        "csv": "".join(["id,text\n", *(f'{row["id"]},"{row["text"]}\n"\n' for row in some)]),
        "txt": "".join(f"{row['text']}\n" for row in some),
    }[name[:3]]
    bucket.put(f"lines/x.{name}", bz2.compress(text.encode()) if "bz2" in name else text.encode())
    source = {
        "uri": f"{bucket.uri}/lines",
        "storage_options": bucket.storage_options,
        "shard": {"rows": 1300},
    }
    if name != "txt":
        source |= {"format": "csv", "schema": {"id": "int64"}}
    spec = a_spec(bucket, source=source, sink={"format": name[:3].replace("txt", "text")})

    assert BatchRunner(spec).run().ok
    parts = sorted(bucket.listed("out/part-"))
    found = b"".join(map(bucket.get, parts)).decode()
    assert found.replace('"id","text"\n', "") == text.removeprefix("id,text\n")
    assert len(parts) == 4
    assert verify(spec, checks=Checks(keys=("text",))).ok


def test_a_part_whose_sentinel_is_lost_is_adopted_by_its_note(bucket):
    """Death between the two PUTs: no row is computed again."""
    BatchRunner(a_spec(bucket)).run()
    before = bucket.listed("out/part-")
    bucket.delete("out/_checkpoint/sentinels/part-00001.json")
    bucket.delete("out/_SUCCESS")

    report = BatchRunner(a_spec(bucket)).run()

    assert (report.ok, report.shards_new, report.shards_adopted) == (True, 0, 1)
    assert str(report).startswith(
        f"done: {report.shards} of {report.shards} shards committed (0 new, 1 adopted, "
    )
    assert before == bucket.listed("out/part-")
    assert "out/part-00001.jsonl" in bucket.sentinels()


def test_a_deleted_part_is_refused(bucket):
    """As on a disk."""
    BatchRunner(a_spec(bucket)).run()
    bucket.delete("out/part-00001.jsonl")

    with pytest.raises(DamagedOutputError, match=r"part-00001\.jsonl: the part is gone"):
        BatchRunner(a_spec(bucket)).run()


def test_new_changed_and_vanished_objects_are_noticed(bucket):
    """By key, size and ETag."""
    BatchRunner(a_spec(bucket)).run()
    bucket.put_rows("in/1.jsonl", rows(50, 4))
    bucket.put_rows("in/9.jsonl", rows(90, 2))

    report = BatchRunner(a_spec(bucket)).run()

    assert report.shards_new == 2
    assert [row["id"] for row in bucket.rows_out()] == [
        0,
        1,
        2,
        3,
        8,
        9,
        10,
        11,
        50,
        51,
        52,
        53,
        90,
        91,
    ]
    assert "out/_retired/part-00001.jsonl" in bucket.listed("out/")
    bucket.delete("in/9.jsonl")
    with pytest.raises(InputChangedError, match=r"in/9\.jsonl"):
        BatchRunner(a_spec(bucket)).run()


@pytest.mark.soak  # the contract of the storage has a long listing too
def test_more_than_a_page_of_shards(moto, prefix):
    """A listing gives a thousand keys at a time."""
    bucket = Bucket(moto, prefix)
    bucket.put_rows("in/big.jsonl", rows(0, 1100))
    source = {
        "uri": f"{bucket.uri}/in",
        "storage_options": bucket.storage_options,
        "shard": {"rows": 1},
    }

    first = BatchRunner(a_spec(bucket, source=source)).run()
    again = BatchRunner(a_spec(bucket, source=source)).run()

    assert (first.shards_new, again.shards_new, again.rows_out) == (1100, 0, 1100)
    bucket.close()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"sink": {"uri": "s3://no-such-bucket-here/out"}}, StorageError, "no-such-bucket-here"),
        ({"source": {"uri": "s3://no-such-bucket-here/in"}}, StorageError, "no-such-bucket-here"),
        ({"source": {"uri": "s3://batchrunner-tests/typo"}}, ObjectNotFoundError, "typo"),
    ],
)
def test_a_wrong_place_is_named(bucket, change, error, words):
    """Before any work is done."""
    options = {"storage_options": bucket.storage_options}
    change = {name: {**value, **options} for name, value in change.items()}

    with pytest.raises(error, match=words):
        BatchRunner(a_spec(bucket, **change)).run()


@pytest.mark.s3
def test_a_wrong_key_is_reported_without_being_shown(seaweedfs, prefix):
    """SeaweedFS checks signatures, as AWS does."""
    options = {**seaweedfs.storage_options, "secret": "CANARY-7f3a"}
    bucket = Bucket(seaweedfs, prefix)
    bucket.put_rows("in/0.jsonl", rows(0, 1))
    source = {"uri": f"{bucket.uri}/in", "storage_options": options}

    with pytest.raises(StorageAccessError) as refusal:
        BatchRunner(a_spec(bucket, source=source)).run()

    assert "CANARY" not in str(refusal.value)
    assert "the secret does not belong to the access key" in str(refusal.value)
    bucket.close()


def test_a_store_that_ignores_conditions_is_refused(rclone, tmp_path):
    """There a second driver, or a zombie, could replace a published part."""
    (tmp_path / "in.jsonl").write_text('{"id": 1}\n')
    sink = {"uri": f"s3://{rclone.bucket}/out", "storage_options": rclone.storage_options}
    spec = BatchSpec(
        capability="capabilities:echo",
        source=str(tmp_path / "in.jsonl"),
        sink=sink,
        execution={"engine": "local"},
    )

    with pytest.raises(UnsafeStorageError, match="unsafe_single_writer"):
        BatchRunner(spec).run()


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.soak), "after"])
def test_dying_at_any_request_loses_and_doubles_nothing(seaweedfs, prefix, moment):
    """The crash sweep, in a bucket of a server in its own process: this one would answer at half the pace."""
    arguments = [seaweedfs.endpoint, seaweedfs.bucket, prefix, moment]
    done = subprocess.run(
        [sys.executable, str(TESTS / "s3_sweep.py"), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    deaths, *findings = done.stdout.splitlines()
    assert int(deaths) >= 15
    assert findings == []


def test_a_bad_row_of_a_bucket_is_set_aside_and_tried_again(bucket, tmp_path):
    """Its dead letter is an object like any other, and its row is read again from where it stands."""
    bucket.put_rows("in/3.jsonl", [{"id": 12, "bad": True}, {"id": 13}])
    flag = tmp_path / "mended"
    capability = {"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(flag)}}
    spec = a_spec(
        bucket,
        capability=capability,
        errors={"max_row_errors": 1},
        analytics_store={"uri": f"{bucket.uri}/store", "storage_options": bucket.storage_options},
    )

    first = BatchRunner(spec).run()
    flag.touch()
    second = BatchRunner(spec).retry(rows=True)

    assert (first.ok, first.rows_out, first.rows_failed) == (True, 13, 1)
    assert (second.ok, second.rows_out, second.rows_failed) == (True, 14, 0)
    assert [row["id"] for row in bucket.rows_out()] == [*range(12), 13, 12]
    assert first.ref != second.ref


def test_damage_in_a_bucket_is_found_set_aside_and_made_again(bucket):
    """Two parts swapped, one gone, one twice: the listing alone would not show it."""
    BatchRunner(a_spec(bucket)).run()
    one, other = (bucket.get(f"out/part-0000{number}.jsonl") for number in (0, 1))
    bucket.put("out/part-00000.jsonl", other)
    bucket.put("out/part-00001.jsonl", one)
    bucket.put("out/part-00009.jsonl", bucket.get("out/part-00002.jsonl"))
    bucket.delete("out/part-00002.jsonl")

    found = {(finding.shard, str(finding.kind)) for finding in verify(a_spec(bucket)).findings}
    done = repair(a_spec(bucket))
    BatchRunner(a_spec(bucket)).run()

    assert {shard for shard, _ in found} == {0, 1, 2, None}
    assert {kind for _, kind in found} <= {"size", "checksum", "missing", "duplicate"}
    assert list(done.to_recompute) == [0, 1, 2]
    assert bucket.rows_out() == rows(0, 12)
    assert verify(a_spec(bucket)).ok
    assert len(bucket.listed("out/_damaged/")) == 3


def test_an_upload_that_was_never_finished_is_listed_and_aborted(bucket):
    """No listing shows its parts, but the owner of the bucket pays for them."""
    BatchRunner(a_spec(bucket)).run()
    bucket.begin_upload("out/part-00007.jsonl")
    options = bucket.storage_options
    checkpoint = open_storage(f"{bucket.uri}/out/_checkpoint", storage_options=options)
    sink = open_storage(f"{bucket.uri}/out", storage_options=options)
    garbage = Garbage(Checkpoint(checkpoint), sink=sink)

    found = garbage.listed()
    garbage.remove()

    assert [(str(one.kind), one.key) for one in found] == [("upload", "part-00007.jsonl")]
    assert bucket.uploads() == 0


@pytest.mark.parametrize("sink_format", ["jsonl", "parquet"])
def test_keys_and_rows_of_a_bucket_are_compared(bucket, sink_format):
    """A row lost and another doubled, all counts right: in a bucket as on a disk."""
    spec = a_spec(
        bucket,
        capability={"target": "capabilities:echo", "deterministic": True},
        sink={"format": sink_format},
    )
    checks = Checks(keys=("id",), replay=1)
    assert BatchRunner(spec).run().ok
    whole = verify(spec, checks=checks)
    part = "out/part-00001." + sink_format

    data = bucket.get(part)
    forged = _first_row_twice(data, sink_format)
    bucket.put(part, forged)
    record = "out/_checkpoint/sentinels/part-00001.json"
    facts = {"bytes": len(forged), "sha256": hashlib.sha256(forged).hexdigest()}
    sentinel = replace(Sentinel.from_bytes(bucket.get(record), key=record), **facts)
    bucket.put(record, sentinel.to_bytes())

    found = {str(f.kind) for f in verify(spec, checks=checks).findings}

    assert (whole.findings, whole.notes[1]) == ((), "replayed 3 of 3 shards: 0, 1, 2")
    assert found - {"manifest"} == {"key_missing", "key_doubled", "replay"}


def _first_row_twice(data: bytes, sink_format: str) -> bytes:
    if sink_format == "jsonl":
        first, _, *others = data.splitlines(keepends=True)
        return b"".join([first, first, *others])
    table = pq.read_table(pa.BufferReader(data))
    twice = pa.concat_tables([table.slice(0, 1), table.slice(0, 1), table.slice(2)])
    out = pa.BufferOutputStream()
    pq.write_table(twice, out)
    return out.getvalue().to_pybytes()


@pytest.mark.s3
def test_a_resumed_run_reads_each_sentinel_once_and_many_at_a_time(proxy, prefix):
    """In a far bucket each takes a round trip: 5,000 of them, 32 at a time, took half a minute."""
    bucket = Bucket(proxy.server, prefix)
    bucket.put_rows("in/big.jsonl", rows(0, SENTINELS + 1))
    source = {
        "uri": f"{bucket.uri}/in",
        "storage_options": bucket.storage_options,
        "shard": {"rows": 1},
    }
    proxy.inject()
    assert BatchRunner(a_spec(bucket, source=source)).run().ok
    for key in [f"{CHECKPOINT}/sentinels/part-00000.json", "out/part-00000.jsonl", "out/_SUCCESS"]:
        bucket.delete(key)
    for key in bucket.listed(f"{CHECKPOINT}/sentinel_index/"):
        bucket.delete(key)
    far = Fault(NetworkFaultKind.DELAY, "GET", r"/sentinels/part-\d+\.json$", seconds=2)
    proxy.inject(far)

    report = BatchRunner(a_spec(bucket, source=source)).run()

    read = Counter(line for line in proxy.requests if far.is_about(*line.split(" ")))
    assert (report.shards_new, len(read), set(read.values())) == (1, SENTINELS, {1})
    assert proxy.at_once > SENTINELS / 2
    bucket.close()


@pytest.mark.s3
@pytest.mark.parametrize("ending", ["arrow", "arrows"])
def test_record_batches_of_a_bucket_are_not_a_request_each(proxy, prefix, ending):
    """Neither to cut a file, nor to find the first row of a slice: a far file took hours to count."""
    bucket = Bucket(proxy.server, prefix)
    batches, out = 160, pa.BufferOutputStream()
    schema = pa.schema({"id": pa.int64(), "payload": pa.binary()})
    new = pa.ipc.new_stream if ending == "arrows" else pa.ipc.new_file
    with new(out, schema) as writer:
        for number in range(batches):
            batch = {"id": [2 * number, 2 * number + 1], "payload": [os.urandom(50_000)] * 2}
            writer.write_table(pa.table(batch, schema=schema))
    bucket.put(f"in/x.{ending}", out.getvalue().to_pybytes())
    source = {
        "uri": f"{bucket.uri}/in",
        "storage_options": bucket.storage_options,
        "shard": {"rows": 40},
        "columns": ["id"],
    }
    proxy.inject()

    assert BatchRunner(a_spec(bucket, source=source)).run().shards_new == 8

    read = [line for line in proxy.requests if line.startswith("GET") and "/in/x." in line]
    parts = [bucket.get(key) for key in sorted(bucket.listed("out/part-"))]
    ids = [row["id"] for part in parts for row in pq.read_table(pa.BufferReader(part)).to_pylist()]
    assert ids == list(range(2 * batches))
    assert len(read) < batches / 2
    bucket.close()


@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_slices_of_a_file_fetch_little_of_one_another(moto, prefix, monkeypatch, name):
    """A file in slices of a megabyte was read eight times over."""
    bucket = Bucket(moto, prefix)
    text = "".join(f'{{"id": {number}, "text": "{"x" * 900}"}}\n' for number in range(4_000))
    bucket.put(f"in/{name}", text.encode())
    source = {
        "uri": f"{bucket.uri}/in",
        "storage_options": bucket.storage_options,
        "shard": {"bytes": 1 << 20},
    }
    real, fetched = S3Calls.request, []

    async def request(calls, method, **parameters):
        answer = await real(calls, method, **parameters)
        if method == "get_object" and parameters["Key"].endswith(name):
            fetched.append(len(answer["Body"]))
        return answer

    monkeypatch.setattr(S3Calls, "request", request)

    report = BatchRunner(a_spec(bucket, source=source)).run()

    assert (report.shards_new, report.rows_out) == (4, 4_000)
    assert len(text) <= sum(fetched) < 1.2 * len(text)
    bucket.close()
