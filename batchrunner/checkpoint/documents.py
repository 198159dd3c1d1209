"""The documents of a checkpoint: one JSON object each, with a version and a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field, fields, replace
from typing import Any, BinaryIO, Self

import orjson

from batchrunner.errors import DamagedOutputError, NewerFormatError, ObjectNotFoundError
from batchrunner.shard import EarlyEnd
from batchrunner.storage.contract import Entry, Storage
from batchrunner.storage.json_documents import check_version, sealed, unseal

FORMAT_VERSION = 1
SENTINEL_VERSION = 4
"""Version 3 of a sentinel has no `usage`; version 2 of a sentinel also has no `slices`, `slice_rows`, `slice_total` and `files`; version 1 also has no `worker`,
`began`, `reading`, `calling` and `writing`."""

TRIAL = "trial"
"""The decisive field that marks a trial, which alone may be cleared without a question."""

_WORDS = {
    "RunRecord": "record of the run",
    "Quarantine": "document of a quarantined shard",
    "Sentinel": "sentinel",
}
_Bytes = bytes  # a sentinel has a field of that name
_KINDS: dict[str, Any] = {
    "int": int,
    "str": str,
    "float": (int, float),
    "dict[str, str]": dict,
    "dict[str, float]": dict,
}


class _Document:
    """A frozen dataclass that is stored as one JSON object, with a checksum as its last member.

    The last field of each subclass is the format version.
    """

    __slots__ = ()

    def to_bytes(self) -> bytes:
        return sealed(orjson.dumps(self))

    @classmethod
    def from_bytes(cls, data: bytes, *, key: str) -> Self:
        """Parse and check *data*, the document under *key*.

        Raises:
            DamagedOutputError: The bytes are torn, foreign or edited.
            NewerFormatError: The document is of a later format version.
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
            # The version may be what was changed.
            raise DamagedOutputError(f"{_changed(key)}. If it was not, {error}") from error
        if not is_unchanged:
            raise DamagedOutputError(_changed(key))
        return document

    @classmethod
    def from_fields(cls, values: Any, *, key: str) -> Self:
        """Return the document whose fields have these *values*.

        Raises:
            DamagedOutputError: A field is missing, unknown or of another type.
            NewerFormatError: The document is of a later format version.
        """
        try:
            check_version(values["version"], name=key, newest=_newest(cls))
            document = cls(**values)
        except (TypeError, KeyError) as error:
            raise DamagedOutputError(_torn(cls, key)) from error
        for one in fields(cls):  # type: ignore[arg-type]  # the subclasses are dataclasses
            if not isinstance(getattr(document, one.name), _KINDS[str(one.type)]):
                raise DamagedOutputError(f"{key} is damaged: its {one.name} is no {one.type}")
        return document


def _changed(key: str) -> str:
    return f"{key} is damaged: it was changed after it was written"


def _newest(kind: type) -> int:
    """Return the newest format version of documents of *kind* that this release reads."""
    return SENTINEL_VERSION if kind.__name__ == "Sentinel" else FORMAT_VERSION


def _torn(kind: type, key: str) -> str:
    return f"{key} is damaged: it holds no whole {_WORDS[kind.__name__]}"


@dataclass(frozen=True, slots=True)
class RunRecord(_Document):
    """What the user asked for when the run began, or when a change of the spec was accepted.

    Attributes:
        run_uid: Names the run over all its sessions.
        name: Name of the spec.
        created_at: ISO 8601, UTC. For people, never compared.
        created_by: user@host. For people.
        spec: The spec's text before interpolation.
        decisive: Every field that decides the output, with its value as JSON; of a trial, also its
            options as `trial`.
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

    @property
    def trial(self) -> str:
        """The option of the trial that this is, such as `--limit 3`; empty for a run itself."""
        return str(orjson.loads(self.decisive.get(TRIAL, '""')))


@dataclass(frozen=True, slots=True)
class Quarantine(_Document):
    """Says that a shard failed as often as it may, and waits for `retry`.

    Attributes:
        run_uid: The run it belongs to.
        shard: Id of the shard.
        reason: Why the last attempt failed.
        attempts: How many attempts there were.
        session: The driver session that quarantined the shard.
    """

    run_uid: str
    shard: int
    reason: str
    attempts: int
    session: str
    version: int = FORMAT_VERSION

    @classmethod
    def unreadable(cls, shard: int, error: DamagedOutputError) -> Quarantine:
        """Return a stand-in for the damaged document of *shard*; it names no run."""
        return cls("", shard, f"why it was quarantined is lost: {error}", attempts=0, session="")


@dataclass(frozen=True, slots=True)
class Sentinel(_Document):
    """Says that a shard is complete. Before that, it is the intent that travels with the part.

    Attributes:
        run_uid: The run it belongs to.
        shard: Id of the shard.
        part: Name of the part in the sink.
        rows_in: Rows read, including those that failed.
        rows_out: Rows in the part.
        rows_failed: Rows that failed, each of them a dead letter.
        bytes: Size of the part.
        sha256: SHA-256 of the part, in hex.
        write_id: Names the attempt that made the part.
        session: The driver session in which the part was made.
        seconds: How long the attempt took, until its part was whole.
        errors: Name of the dead-letter file in `errors/`; empty if there is none.
        errors_sha256: SHA-256 of that file, in hex; empty if there is none.
        source_hash: For each slice, the hash of the bytes it was made of (`formats/hashing.py`), with a
            blank between them; empty if none is available. An intent has none of several slices.
        worker: The worker that made the part, `<host>-<pid>`; empty in version 1, as the next ones.
        began: When the attempt began, in seconds since 1970 UTC by the worker's clock. For people,
            never compared to decide; 0.0 if unknown.
        reading: Seconds in which the attempt read the source.
        calling: Seconds in which it waited for the capability.
        writing: Seconds in which it wrote the part, with a share of its worker's commit before: how
            long its own takes is known only after its sentinel is durable. The three overlap, so
            their sum may exceed *seconds*.
        slices: How many slices of its shard it read, where it ended the shard early (see `EarlyEnd`);
            0 if it read the whole shard.
        slice_rows: How many rows of the last of these.
        slice_total: How many rows that slice has.
        files: Name of the bundle in `files/`, if the part lists files: it is there until the shard is
            committed. Empty for other parts, and before version 3.
        usage: What the calls used that its rows and dead letters came of, by name, with their `cost`;
            empty if they did not say, and before version 4.
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
    worker: str = ""
    began: float = 0.0
    reading: float = 0.0
    calling: float = 0.0
    writing: float = 0.0
    slices: int = 0
    slice_rows: int = 0
    slice_total: int = 0
    files: str = ""
    usage: dict[str, float] = field(default_factory=dict)
    version: int = SENTINEL_VERSION

    @property
    def early_end(self) -> EarlyEnd | None:
        """Where it ended its shard early; None if it read the whole shard."""
        if not self.slices:
            return None
        return EarlyEnd(self.slices, self.slice_rows, self.slice_total)

    def hashes_of(self, slices: Sized) -> Sequence[str]:
        """Return the hash of each of the *slices* of its shard; "" where none is available."""
        hashes = self.source_hash.split(" ")
        return hashes if len(hashes) == len(slices) else [""] * len(slices)

    def to_intent(self) -> _Bytes:
        """Return the sentinel as it travels with its part: S3 keeps 2 KB beside an object.

        Without the hashes of many slices, an adopted shard is made again once a file of it is touched.
        """
        intent = replace(self, source_hash="") if " " in self.source_hash else self
        return intent.to_bytes()

    def is_of(self, stem: str, *, run_uid: str) -> bool:
        """Return whether it belongs to part *stem* of run *run_uid*: no other may be trusted."""
        return self.run_uid == run_uid and self.part.partition(".")[0] == stem


_BLOCK_BYTES = 1 << 20


def lines_of(records: Storage, key: str) -> Iterator[bytes]:
    """Yield the lines of the object under *key*, in bounded memory.

    Raises:
        ObjectNotFoundError: There is no such object.
    """
    entry = records.head(key)
    if entry is None:
        raise ObjectNotFoundError(f"{records.uri}/{key} is not there")
    with records.open(entry) as file:
        yield from lines_in(file)


def lines_in(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of *file*, in bounded memory."""
    rest = b""
    while block := file.read(_BLOCK_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def sha256_of(storage: Storage, entry: Entry) -> str:
    """Read an object from end to end, and return its SHA-256 in hex."""
    digest = hashlib.sha256()
    with storage.open(entry) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
