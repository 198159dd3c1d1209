"""Journaled answers: what a capability answered for rows of shards in flight, so that no crash asks again.

They are kept in small objects, each written once. One counts for the run, the shard and the definition that it
names, and only for a row that is still the same: a line has a digest of its row. An object that is torn or
edited does not count; its rows are asked again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import orjson

from batchrunner.checkpoint.exact_values import from_json, to_json
from batchrunner.checkpoint.totals import added
from batchrunner.errors import StorageError
from batchrunner.storage import Storage

ANSWERS = "answers"
"""Folder of the journaled answers."""

ANSWERS_VERSION = 1
READERS = 16
"""How many objects are read at a time."""
_NAME = re.compile(rf"{ANSWERS}/part-(\d{{5,}})\.[^/]*\.jsonl")


@dataclass(frozen=True, slots=True)
class Scope:
    """What journaled answers count for.

    Attributes:
        run_uid: The run.
        definition: The fingerprint of what decides the output, the capability's code included.
        shard: Id of the shard.
    """

    run_uid: str
    definition: str
    shard: int


@dataclass(frozen=True, slots=True)
class JournaledAnswer:
    """The answer for one row.

    Attributes:
        number: The number of the row's slice in its shard.
        at: Where it stands in the file of that slice.
        row: The digest of the row, by `digest_of`.
        rows: The rows that the capability gave for it.
        usage: What the calls for it used.
    """

    number: int
    at: int
    row: str
    rows: Sequence[dict[str, Any]]
    usage: Mapping[str, float] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """Return the answer as one line.

        Raises:
            NotExactError: JSON does not hold it exactly.
        """
        usage = {"usage": dict(self.usage)} if self.usage else {}
        place = {"slice": self.number, "at": self.at, "row": self.row, **usage}
        rows = to_json(self.rows)
        return orjson.dumps(place)[:-1] + b',"answer":' + rows.encode() + b"}\n"


def digest_of(row: Mapping[str, Any]) -> str:
    """Return a digest of the values and types of *row*, which Python's `repr` shows."""
    text = repr(row).encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def answers_object(scope: Scope, lines: Iterable[bytes]) -> bytes:
    """Return the object that keeps *lines* for *scope*: a header with their hash, and the lines."""
    body = b"".join(lines)
    header = {
        "version": ANSWERS_VERSION,
        "run_uid": scope.run_uid,
        "definition": scope.definition,
        "shard": scope.shard,
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return orjson.dumps(header) + b"\n" + body


def journaled_rows(records: Storage, run_uid: str, *, pending: Container[int]) -> int:
    """Return for how many rows of the shards *pending* the run *run_uid* has journaled answers. Reads all of these.

    Raises:
        StorageError: The journal cannot be listed.
    """
    keys = [entry.key for entry in records.list(ANSWERS) if shard_of(entry.key) in pending]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda key: list(_rows_in(records, key, run_uid)), keys)
        return len({row for rows in found for row in rows})


def _rows_in(records: Storage, key: str, run_uid: str) -> Iterator[tuple[int, int, int]]:
    """Yield the shard, slice and place of each row in the object under *key*, if that counts for *run_uid*."""
    try:
        data = records.get(key)
        header = orjson.loads(data.partition(b"\n")[0])
        scope = Scope(run_uid, header["definition"], header["shard"])
    except (StorageError, ValueError, KeyError, TypeError):  # gone since the listing, or damaged
        return
    for place, _ in lines_for(scope, data):
        yield scope.shard, *place


def lines_for(scope: Scope, data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield the lines in *data* with the slice and place of their row; none if it does not count for *scope*."""
    head, _, body = data.partition(b"\n")
    try:
        header = orjson.loads(head)
        named = Scope(header["run_uid"], header["definition"], header["shard"])
        counts = header["version"] == ANSWERS_VERSION and named == scope
        if not counts or header["sha256"] != hashlib.sha256(body).hexdigest():
            return
    except (ValueError, KeyError, TypeError):
        return
    for line in body.split(b"\n"):
        if line and (place := _place(line)):
            yield place, line


_PLACE = re.compile(rb'\{"slice":(\d+),"at":(\d+),')


def _place(line: bytes) -> tuple[int, int] | None:
    found = _PLACE.match(line)
    return (int(found[1]), int(found[2])) if found else None


def answer_in(line: bytes) -> JournaledAnswer | None:
    """Return the answer in *line*; None if it cannot be read."""
    try:
        fields = from_json(line)
        place = fields["slice"], fields["at"], fields["row"]
        return JournaledAnswer(*place, fields["answer"], added(fields.get("usage", {})))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def answers_key(stem: str, writer: str, number: int) -> str:
    """Return the key of object *number* of one *writer* for the shard whose part has *stem*."""
    return f"{ANSWERS}/{stem}.{writer}.{number:06d}.jsonl"


def shard_of(key: str) -> int | None:
    """Return the id of the shard whose answers are under *key*; None if it is no such key."""
    found = _NAME.fullmatch(key)
    return int(found[1]) if found else None
