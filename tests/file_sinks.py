"""A sink of files, read past batchrunner: what its parts list, and what is on the disk or in the bucket."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Files = dict[str, bytes]


def draws(rows):
    """A capability that makes other bytes each time, such as a model that samples."""
    return [{"path": path_of(row["id"]), "bytes": os.urandom(24), "id": row["id"]} for row in rows]


def draws_unless_bad(rows):
    if any(row.get("bad") for row in rows):
        raise ValueError("a bad row")
    return draws(rows)


def draws_unless_same(rows):
    """As `draws`, under the path of each row; the file `same` has always the same bytes."""
    return [{**row, "bytes": b"=" if row["path"] == "same" else os.urandom(24)} for row in rows]


def path_of(number: int) -> str:
    return f"{number % 2}/{number:02d}.bin"


def files_in(sink: Path) -> Files:
    """All files that are no parts, by path; without those in hidden folders."""
    found = {}
    for folder, folders, names in os.walk(sink):
        folders[:] = [name for name in folders if name[0] not in "._"]
        for name in names:
            key = os.path.relpath(os.path.join(folder, name), sink)
            if name[0] not in "._" and not key.startswith("part-"):
                found[key] = Path(folder, name).read_bytes()
    return found


def lines_of(part: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in part.read_text().splitlines()]


def unfit(line: dict[str, Any], files: Files) -> str:
    """Return what is wrong with the file that *line* lists; "" if nothing is."""
    data = files.get(line["path"])
    if data is None:
        return f"{line['path']} is not there"
    have = (len(data), hashlib.sha256(data).hexdigest())
    return "" if have == (line["size"], line["sha256"]) else f"{line['path']} has other bytes"


def misfits(sink: Path) -> list[str]:
    """Return each listed file that is not as listed, and each file that no part lists."""
    lines = [line for part in sorted(sink.glob("part-*")) for line in lines_of(part)]
    files = files_in(sink)
    unlisted = files.keys() - {line["path"] for line in lines}
    return [*filter(None, (unfit(line, files) for line in lines)), *sorted(unlisted)]


def files_in_bucket(bucket: Any) -> Files:
    """All objects of a sink `out/` in a bucket that are no parts, by path."""
    keys = [key.removeprefix("out/") for key in bucket.listed("out/")]
    named = [k for k in keys if not k.startswith("part-") and not re.search(r"(^|/)[._]", k)]
    return {key: bucket.get(f"out/{key}") for key in named}


def misfits_in(bucket: Any, *, parts: Iterable[str]) -> list[str]:
    """Return each file that *parts* in a bucket list that is not as listed."""
    files = files_in_bucket(bucket)
    lines = [json.loads(line) for part in parts for line in bucket.get(part).splitlines()]
    return list(filter(None, (unfit(line, files) for line in lines)))


def as_named(batch):
    """A capability for any batch format: each file under the end of its path, after `/in/`."""
    if isinstance(batch, list):
        return [{"path": below(row["path"]), "bytes": row["bytes"], "n": 1} for row in batch]
    if hasattr(batch, "to_pydict"):
        paths = [below(path) for path in batch.column("path").to_pylist()]
        return batch.select(["bytes"]).add_column(0, "path", [paths])
    paths = [below(path) for path in batch["path"]]
    return {"path": paths, "bytes": list(batch["bytes"])}


def below(path: str) -> str:
    return path.rpartition("/in/")[2]


def from_lines(rows):
    """A capability whose rows say what the file is: text, or none, or what is no bytes."""
    return [
        {"path": row["path"], "bytes": row["text"].encode() if row.get("text") is not None else 7}
        for row in rows
    ]


def counted(rows, log):
    """Make other bytes each time, and note each call in the file *log*."""
    with Path(log).open("a") as file:
        file.write("x")
    return draws(rows)


def content(rows, path):
    """Make the bytes that the file at *path* has at that moment."""
    return [{"path": path_of(row["id"]), "bytes": Path(path).read_bytes()} for row in rows]
