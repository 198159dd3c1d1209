"""Names of a store's objects. Part of its format: see docs/reference/analytics-store.md."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from batchrunner.errors import StorageError
from batchrunner.storage import Storage
from batchrunner.storage.json_documents import from_json, to_json

FORMAT_VERSION = 1
SCHEMAS = "_schema"
CATALOGS = "_catalog"

_WRITTEN = re.compile(r"(?:run|set)-[0-9a-f]{32}")
_COMPACTED = re.compile(r"compacted-(\d{8,})-[0-9a-f]{32}-\d+")
_NUMBERED = re.compile(r"(\d{8,})\.json")
_CLAIM = re.compile(r"(\d{8,})\.claim")
_SUFFIX = ".parquet"


def stem_of(run_uids: Iterable[str]) -> str:
    """Return the stem of the files that hold exactly these runs: their name without the suffix.

    It is the same in every table. Stems of single runs sort before those of sets.
    """
    unique = sorted(set(run_uids))
    text = "".join(f"{len(uid.encode())}:{uid}" for uid in unique)
    kind = "run" if len(unique) == 1 else "set"
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def file_key(table: str, stem: str) -> str:
    """Return the key of the file of *table* with the name *stem*."""
    return f"{table}/{stem}{_SUFFIX}"


def stem_in(key: str) -> str:
    """Return the stem of the file at *key*: its name without folder and suffix."""
    return key.rpartition("/")[2].removesuffix(_SUFFIX)


def is_written(key: str) -> bool:
    """Return whether the file at *key* has a name that `write` gives its files."""
    return key.endswith(_SUFFIX) and _WRITTEN.fullmatch(stem_in(key)) is not None


def compacted_stem(number: int, index: int) -> str:
    """Return a unique stem for the file *index* of compaction *number*."""
    return f"compacted-{number:08d}-{uuid.uuid4().hex}-{index}"


def compaction_in(key: str) -> int | None:
    """Return the number of the compaction that made the file at *key*, or None."""
    match = _COMPACTED.fullmatch(stem_in(key)) if key.endswith(_SUFFIX) else None
    return int(match[1]) if match else None


def catalog_key(number: int) -> str:
    """Return the key of catalog *number*."""
    return f"{CATALOGS}/{number:08d}.json"


def catalog_number(key: str) -> int | None:
    """Return the number of the catalog at *key*, or None."""
    match = _NUMBERED.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else None


def claim_key(number: int) -> str:
    """Return the key of the claim to make catalog *number*."""
    return f"{CATALOGS}/{number:08d}.claim"


def claim_number(key: str) -> int | None:
    """Return the number of the catalog that the claim at *key* is for, or None."""
    match = _CLAIM.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else None


def schema_key(table: str, number: int) -> str:
    """Return the key of schema *number* of *table*."""
    return f"{SCHEMAS}/{table}.{number:08d}.json"


def schema_place(key: str) -> tuple[str, int] | None:
    """Return the table and the number of the schema at *key*, or None."""
    table, _, name = key.rpartition("/")[2].partition(".")
    match = _NUMBERED.fullmatch(name)
    return (table, int(match[1])) if match else None


def to_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as a JSON document with the format version."""
    return to_json(fields, version=FORMAT_VERSION)


def read_json(storage: Storage, key: str) -> dict[str, Any]:
    """Return the fields of the document under *key*.

    Raises:
        ObjectNotFoundError: There is no such document.
        NewerFormatError: A later version of batchrunner wrote it.
        StorageError: It is torn, or batchrunner did not write it.
    """
    return from_json(
        storage.get(key),
        name=f"{storage.uri}/{key}",
        newest=FORMAT_VERSION,
        damaged=StorageError,
        way_out="; restore it from a copy",
    )
