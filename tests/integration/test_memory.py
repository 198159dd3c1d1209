"""Memory does not grow with the size of a shard."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from builders import parts
from command import ENVIRONMENT, a_spec_file

ROWS = 4_000_000
TEXT = "the quick brown fox jumps over the lazy dog " * 5
# Not getrusage: its peak is also that of the parent, at the time of the fork.
MEASURED = (
    "import re\n"
    "from batchrunner.cli import main\n"
    "try: main()\n"
    "except SystemExit as end: code = end.code\n"
    "status = open('/proc/self/status').read()\n"
    "print(code, int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) // 1024)\n"
)


def one_large_file(folder, suffix):
    """One shard of about 900 MB of rows."""
    folder.mkdir()
    if suffix == "parquet":
        schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
        with pq.ParquetWriter(folder / "large.parquet", schema) as writer:
            for first in range(0, ROWS, 100_000):
                ids = range(first, first + 100_000)
                texts = [f"{TEXT}{n}" for n in ids]
                writer.write_table(pa.table({"id": ids, "text": texts}, schema=schema))
        return
    block = "".join(json.dumps({"id": n, "text": TEXT}) + "\n" for n in range(10_000)).encode()
    with gzip.open(folder / "large.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(ROWS // 10_000):
            file.write(block)


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        pytest.param("jsonl.gz", "jsonl", marks=pytest.mark.sweep),
        pytest.param("parquet", "parquet", marks=pytest.mark.sweep),
        pytest.param("jsonl.gz", "parquet", marks=pytest.mark.sweep),
    ],
)
def test_a_shard_that_is_larger_than_the_memory_allowed_streams(tmp_path, source, sink):
    """900 MB of rows that cannot be cut go through in a fraction of that."""
    one_large_file(tmp_path / "in", source)
    source_spec = {"uri": "in", "shard": {"files": 1}}
    a_spec_file(tmp_path, source=source_spec, sink={"uri": "out", "format": sink})

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "run", "spec.yaml"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )

    code, megabytes = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert len(parts(tmp_path / "out")) == 1
    assert megabytes < (600 if sink == "parquet" else 300)  # a row group is held, and written


def one_long_line(folder, suffix):
    """Rows before and after a line of 1 GiB, which takes a few bytes on the disk."""
    folder.mkdir()
    good = b'{"id": 1}\n'
    if suffix == "jsonl":
        with (folder / "long.jsonl").open("wb") as file:
            file.write(good)
            file.seek(2**30, 1)  # a hole: NUL bytes
            file.write(b"\n" + good)
        return
    with gzip.open(folder / "bomb.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(good)
        for _ in range(2**10):
            file.write(b"a" * 2**20)
        file.write(b"\n" + good)


@pytest.mark.parametrize("suffix", ["jsonl", pytest.param("jsonl.gz", marks=pytest.mark.sweep)])
def test_a_line_of_a_gibibyte_costs_that_line(tmp_path, suffix):
    """Also where it comes out of a few bytes: a bomb."""
    one_long_line(tmp_path / "in", suffix)
    a_spec_file(tmp_path, source={"uri": "in"}, errors={"max_row_errors": 1})

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "run", "spec.yaml"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )

    code, megabytes = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert "3 in, 2 out, 1 failed" in done.stderr
    assert megabytes < 300


def rows_of_a_megabyte(folder, *, text):
    """300 rows in a file of a few kilobytes."""
    folder.mkdir()
    with pa.CompressedOutputStream(folder / "rows.jsonl.zst", "zstd") as file:
        for n in range(300):
            file.write(json.dumps({"id": n, "text": text}).encode() + b"\n")


@pytest.mark.sweep
def test_large_rows_in_a_small_file_take_no_more_than_the_budget(tmp_path):
    """Each batch was bounded, and nine of them were held, as bytes, as objects and as lines."""
    rows_of_a_megabyte(tmp_path / "tiny", text="a")
    rows_of_a_megabyte(tmp_path / "large", text="a" * 2**20)
    peaks = {}
    for source, batch_format in [("tiny", "pyarrow"), ("large", "rows"), ("large", "pyarrow")]:
        folder = tmp_path / f"{source}-{batch_format}"
        folder.mkdir()
        # Slow, so that as much is read ahead as may be.
        a_spec_file(
            folder,
            capability="capabilities:slow_by_row",
            source=f"../{source}",
            execution={"engine": "local", "batch_format": batch_format},
        )
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "run", "spec.yaml"],
            cwd=folder,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=True,
        )
        code, peaks[source, batch_format] = map(int, done.stdout.split())
        assert code == 0, done.stderr

    # The budget is 256 MiB; the allocator keeps some of what is free.
    base = peaks.pop(("tiny", "pyarrow"))
    assert max(peaks.values()) - base < 350, peaks
