"""In mode `row` a function may fill one dict again and again: each answer is as it was when it was returned."""

from __future__ import annotations

import csv
import tarfile

import pytest

from api_capabilities import made
from batchrunner import BatchRunner
from builders import a_spec, parts, rows, rows_out, write_jsonl

COUNT = 40


def of_csv(out, delimiter=","):
    [part] = parts(out)
    read = csv.DictReader(part.read_text().splitlines(), delimiter=delimiter)
    return [{"id": int(row["id"]), "text": row["text"]} for row in read]


def of_text(out):
    [part] = parts(out)
    return [{"text": line} for line in part.read_text().splitlines()]


def of_tar(out):
    [part] = parts(out)
    with tarfile.open(part) as tar:
        return [
            {"__key__": one.name.partition(".")[0], "txt": tar.extractfile(one).read()}
            for one in tar
        ]


def of_files(out):
    return [{"path": one.name, "bytes": one.read_bytes()} for one in sorted(out.glob("*.txt"))]


TABLE = ["id", "text"]
SINKS = {
    "jsonl": (TABLE, rows_out),
    "parquet": (TABLE, rows_out),
    "csv": (TABLE, of_csv),
    "tsv": (TABLE, lambda out: of_csv(out, "\t")),
    "text": (["text"], of_text),
    "tar": (["__key__", "txt"], of_tar),
    "files": (["path", "bytes"], of_files),
}


def written(folder, target, sink):
    names, read = SINKS[sink]
    write_jsonl(folder / "in/a.jsonl", rows(0, COUNT))
    arguments = {"names": names}
    spec = a_spec(
        folder,
        capability={
            "target": f"api_capabilities:{target}",
            "mode": "row",
            "fn_constructor_kwargs": arguments,
        },
        sink={"uri": str(folder / "out"), "format": sink},
        execution={"engine": "local", "batch_size": 16},
    )
    assert BatchRunner(spec).run().exit_code == 0
    return read(folder / "out")


def expected(sink):
    return [{name: made(name, n) for name in SINKS[sink][0]} for n in range(COUNT)]


@pytest.mark.parametrize("sink", SINKS)
def test_a_dict_that_is_filled_again_is_written_as_it_was_returned(tmp_path, sink):
    """All rows of a batch had the values of its last one."""
    assert written(tmp_path, "Refills", sink) == expected(sink)


@pytest.mark.parametrize("target", ["RefillsInLists", "Yields", "RefillsLater", "YieldsLater"])
def test_it_may_be_in_a_list_or_yielded_or_come_later(tmp_path, target):
    """However a capability gives its rows."""
    assert written(tmp_path, target, "jsonl") == expected("jsonl")
