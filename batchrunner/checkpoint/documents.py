"""The documents of a checkpoint: one JSON object each, with a version and a checksum."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import orjson

from batchrunner.errors import DamagedOutputError, NewerFormatError, ObjectNotFoundError
from batchrunner.storage.contract import Storage
from batchrunner.storage.json_documents import check_version, sealed, unseal

FORMAT_VERSION = 1

_WORDS = {
    "RunRecord": "record of the run",
    "Quarantine": "document of a quarantined shard",
    "Sentinel": "sentinel",
}
_KINDS: dict[str, Any] = {"int": int, "str": str, "float": (int, float), "dict[str, str]": dict}


class _Document:
    """A frozen dataclass that is kept as a JSON object with a checksum of itself at its end.

    Its last field is the format version.
    """

    __slots__ = ()

    def to_bytes(self) -> bytes:
        return sealed(orjson.dumps(self))

    @classmethod
    def from_bytes(cls, data: bytes, *, key: str) -> Self:
        """Read a document back.

        Raises:
            DamagedOutputError: The bytes are torn, foreign or edited.
            NewerFormatError: They are of a later version.
        """
        try:
            values, is_unchanged = unseal(data)
        except ValueError as error:
            raise DamagedOutputError(_torn(cls, key)) from error
        try:
            document = cls.from_fields(values, key=key)
        except NewerFormatError as error:
            if is_unchanged:
                raise
            raise DamagedOutputError(str(error)) from error  # the version may be what was changed
        if not is_unchanged:
            raise DamagedOutputError(f"{key} is damaged: it was changed after it was written")
        return document

    @classmethod
    def from_fields(cls, values: Any, *, key: str) -> Self:
        """Make a document of the values of its fields.

        Raises:
            DamagedOutputError: They are not those of such a document.
            NewerFormatError: They are of a later version.
        """
        try:
            check_version(values["version"], name=key, newest=FORMAT_VERSION)
            document = cls(**values)
        except (TypeError, KeyError) as error:
            raise DamagedOutputError(_torn(cls, key)) from error
        for field in fields(cls):  # type: ignore[arg-type]  # the subclasses are dataclasses
            if not isinstance(getattr(document, field.name), _KINDS[str(field.type)]):
                raise DamagedOutputError(f"{key} is damaged: its {field.name} is no {field.type}")
        return document


def _torn(kind: type, key: str) -> str:
    return f"{key} is damaged: it holds no whole {_WORDS[kind.__name__]}"


@dataclass(frozen=True, slots=True)
class RunRecord(_Document):
    """What was asked for when the checkpoint was made, or when a change was accepted.

    Attributes:
        run_uid: Names the run over all its sessions.
        name: Of the spec.
        created_at: ISO 8601, UTC. For people, never compared.
        created_by: user@host. For people.
        spec: The spec's text before interpolation.
        decisive: Every field that decides the output, with its value as JSON.
        fingerprint: Hash of *decisive*.
    """

    run_uid: str
    name: str
    created_at: str
    created_by: str
    spec: str
    decisive: dict[str, str]
    fingerprint: str
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Quarantine(_Document):
    """Says that a shard failed too often to be retried before a user says so.

    Attributes:
        run_uid: The run it belongs to.
        shard: Id.
        reason: Why the last attempt failed.
        attempts: How many there were.
        session: The driver session that gave it up.
    """

    run_uid: str
    shard: int
    reason: str
    attempts: int
    session: str
    version: int = FORMAT_VERSION

    @classmethod
    def unreadable(cls, shard: int, error: DamagedOutputError) -> Quarantine:
        """Stand in for a damaged one, of which only the name can be read: it names no run."""
        return cls("", shard, f"why it was quarantined is lost: {error}", attempts=0, session="")


@dataclass(frozen=True, slots=True)
class Sentinel(_Document):
    """Says that a shard is complete. Before that, it is the intent that travels with the part.

    Attributes:
        run_uid: The run it belongs to.
        shard: Id.
        part: Name of the part in the sink.
        rows_in: Rows read, also those that failed.
        rows_out: Rows in the part.
        rows_failed: Rows that failed, each of them a dead letter.
        bytes: Size of the part.
        sha256: Of the part, in hex.
        write_id: Names the attempt that made the part.
        session: The driver session that it was made in.
        seconds: How long the attempt took.
        errors: Name of the file, in `errors/`, of the dead letters; empty for none.
        errors_sha256: Of that file, in hex; empty for none.
        source_hash: Of what the shard was made of (`formats/hashing.py`); empty where none is kept.
    """

    run_uid: str
    shard: int
    part: str
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes: int
    sha256: str
    write_id: str
    session: str
    seconds: float
    errors: str = ""
    errors_sha256: str = ""
    source_hash: str = ""
    version: int = FORMAT_VERSION

    def is_of(self, stem: str, *, run_uid: str) -> bool:
        """Return whether it is of the part called *stem* and of that run; no other may be trusted."""
        return self.run_uid == run_uid and self.part.partition(".")[0] == stem


_BLOCK_BYTES = 1 << 20


def lines_of(records: Storage, key: str) -> Iterator[bytes]:
    """Yield the lines of the object under *key*, in bounded memory.

    Raises:
        ObjectNotFoundError: There is none.
    """
    entry = records.head(key)
    if entry is None:
        raise ObjectNotFoundError(f"{records.uri}/{key} is not there")
    rest = b""
    with records.open(entry) as file:
        while block := file.read(_BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
    if rest:
        yield rest
