"""Dead letters: the rows that failed, each with its place in the source and its error.

Two kinds of files hold them. A file that a sentinel names is part of the output. A file of the other
kind holds the first failed rows of a shard that failed as a whole: no sentinel names it, it explains
the failure, and it is garbage once that shard is committed.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.documents import lines_of
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError, StorageError
from batchrunner.formats.chunk import BadRow, Position, UnreadableRowError
from batchrunner.shard import Shard
from batchrunner.spec.secrets import scrubbed
from batchrunner.storage import Staged
from batchrunner.user_code import place_in_code, stage_of

_log = logging.getLogger(__name__)

_MAX_MESSAGE = 2000
MAX_SHOWN_MESSAGE, MAX_SHOWN_ROW = 300, 200
_OF_FAILED_SHARD = re.compile(r"errors/(?P<stem>[^.]+)\.failed\.\d+\.\w+\.jsonl")
_TEXTS = ("source", "unit", "stage", "error", "message")
_MORE_TEXTS = ("code", "raw", "raw_base64", "traceback")
_WAY_OUT = (
    "batchrunner verify --repair SPEC moves it to _damaged/, and the next run makes its shard again"
)


class Stage(StrEnum):
    """Where a row failed: while it was read, or after the stages of a capability.

    In between, it is the name of the stage; of a capability without stages, that of its class or function.
    """

    READ = "read"
    CAPABILITY = "capability"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that failed, with its error.

    Attributes:
        shard: Id of the row's shard.
        source: URI of the row's file.
        position: Where the row is in that file, and the first of its bytes.
        stage: Where the row failed: a `Stage`, or the name of a stage of the capability.
        error: Name of the error's type.
        message: Message of the error.
        code: File and line of the user's code that raised the error; empty if no user code did.
        traceback: Traceback in the user's code; only on the first row of a shard that failed in this way.
        number: Which slice of the shard the row is from, from 0.
    """

    shard: int
    source: str
    position: Position
    stage: str
    error: str
    message: str
    code: str = ""
    traceback: str = ""
    number: int = 0

    @classmethod
    def unreadable(cls, shard: Shard, bad: BadRow, *, number: int = 0) -> DeadLetter:
        """Return the dead letter of a row of slice *number* that could not be read."""
        reason = scrubbed(bad.reason)
        source = shard.slices[number].uri
        return cls(
            shard.id, source, bad.position, Stage.READ, "UnreadableRow", reason, number=number
        )

    @classmethod
    def refused(
        cls,
        shard: Shard,
        position: Position,
        error: BaseException,
        *,
        number: int = 0,
        stage: str = Stage.CAPABILITY,
    ) -> DeadLetter:
        """Return the dead letter of a row of slice *number* for which the capability, or the sink, raised.

        An error that names no stage is of *stage*.
        """
        name = getattr(error, "type_name", type(error).__name__)
        message = writable(error)[:_MAX_MESSAGE]
        unread = isinstance(error, UnreadableRowError)  # the capability has not seen it
        stage = Stage.READ if unread else stage_of(error) or stage
        code = place_in_code(error)
        source = shard.slices[number].uri
        return cls(shard.id, source, position, stage, name, message, code, number=number)

    @property
    def kind(self) -> tuple[str, str]:
        """Type of the error and place in the code: equal for rows that failed in the same way."""
        return self.error, self.code

    @property
    def why(self) -> str:
        """Return type, message and place of the error, in one line."""
        typed = f"{self.error}: {self.message}".rstrip(": ")
        what = self.message if self.stage == Stage.READ else typed
        place = f" (at {self.code})" if self.code else ""
        return f"{one_line(what, most=MAX_SHOWN_MESSAGE)}{place}"

    @property
    def row(self) -> str:
        """Return the row's content in one line, shortened if it is long."""
        return one_line(self.position.raw.decode(errors="replace"), most=MAX_SHOWN_ROW)

    def to_line(self) -> bytes:
        """Return the dead letter in its stored form: a JSON object in one line."""
        fields: dict[str, Any] = {
            "version": 1,
            "shard": self.shard,
            "source": self.source,
            **({"slice": self.number} if self.number else {}),
            "unit": self.position.unit,
            "at": self.position.at,
            "stage": self.stage,
            "error": self.error,
            "message": self.message,
            "code": self.code,
            **({"traceback": self.traceback} if self.traceback else {}),
        }
        return orjson.dumps({**fields, **_raw(self.position.raw)}) + b"\n"

    def __str__(self) -> str:
        return f"{self.source}, {self.position}: {self.why}; the row: {self.row}"


def writable(text: object) -> str:
    """Return *text* from the user's code in a form that may be stored: no secrets, and valid UTF-8.

    Shorten it only afterwards: half a secret is not recognised as one.
    """
    return scrubbed(str(text).encode(errors="backslashreplace").decode())


def one_line(text: str, *, most: int) -> str:
    """Return the first *most* characters of *text* in one line, unprintable ones escaped."""
    words = " ".join(text.split())
    shown = words if len(words) <= most else f"{words[:most]}…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def dead_letters_of(checkpoint: Checkpoint, sentinel: Sentinel) -> Iterator[dict[str, Any]]:
    """Yield the dead letters in the file that *sentinel* names, each as its stored JSON object.

    Raises:
        DamagedOutputError: The file is gone or damaged, or does not hold `rows_failed` rows.
    """
    if not sentinel.errors:
        return
    key = f"errors/{sentinel.errors}"
    where, count = f"{checkpoint.records.uri}/{key}", 0
    try:
        for line in lines_of(checkpoint.records, key):
            yield dead_letter_in(line)
            count += 1
    except (ObjectNotFoundError, ValueError) as error:
        raise DamagedOutputError(f"{where} is damaged or gone; {_WAY_OUT}") from error
    if count != sentinel.rows_failed:
        raise DamagedOutputError(
            f"{where} has {count:,} rows where its sentinel says {sentinel.rows_failed:,}; {_WAY_OUT}"
        )


def dead_letter_in(line: bytes) -> dict[str, Any]:
    """Return the stored dead letter in *line*, as a JSON object.

    Raises:
        ValueError: The line is not a dead letter.
    """
    dead_letter = orjson.loads(line)
    if isinstance(dead_letter, dict):
        texts = [dead_letter.get(key) for key in _TEXTS]
        texts += [dead_letter.get(key, "") for key in _MORE_TEXTS]
        numbers = [dead_letter.get(key, 0) for key in ("shard", "at", "slice")]
        if all(isinstance(t, str) for t in texts) and all(isinstance(n, int) for n in numbers):
            return dead_letter
    raise ValueError("no dead letter")


class DeadLetterFile:
    """Writes the dead letters of one attempt to a staged file; they count once it is published."""

    def __init__(self, staged: Staged) -> None:
        self.staged, self.count = staged, 0
        self._hash = hashlib.sha256()

    def append(self, dead_letters: Iterable[DeadLetter]) -> None:
        """Append *dead_letters* to the file."""
        lines = [dead_letter.to_line() for dead_letter in dead_letters]
        data = b"".join(lines)
        self.staged.file.write(data)
        self._hash.update(data)
        self.count += len(lines)

    def sha256(self) -> str:
        return self._hash.hexdigest()


def keep_dead_letters(
    checkpoint: Checkpoint, stem: str, dead_letters: Sequence[DeadLetter], *, epoch: int
) -> None:
    """Store the *dead_letters* of the last attempt at a shard that failed: durable, best effort.

    A storage error is logged, not raised: the shard's failure is reported in any case.
    """
    # The name has the epoch, not a time: the latest driver's file counts, and the clocks of two machines
    # differ. A task that Ray runs again leaves a second file; both have the same rows.
    name = f"{stem}.failed.{epoch:08d}.{uuid.uuid4().hex}.jsonl"
    try:
        file = DeadLetterFile(checkpoint.records.stage())
        file.append(dead_letters)
        file.staged.file.close()
        checkpoint.publish_dead_letters({name: file.staged})
    except StorageError as error:
        _log.warning(
            "the dead letters of shard %s could not be stored (%s); `batchrunner retry` collects them again",
            stem,
            error,
        )


def kept_dead_letters(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the key of each failed shard's latest dead-letter file, by the stem of its part.

    One listing. It includes shards that were committed since.
    """
    # Sorted by stem and then by epoch, so that a later file replaces an earlier one.
    keys = sorted(entry.key for entry in checkpoint.records.list("errors"))
    return {match["stem"]: match[0] for match in map(_OF_FAILED_SHARD.fullmatch, keys) if match}


def dead_letters_under(checkpoint: Checkpoint, key: str) -> Iterator[dict[str, Any]]:
    """Yield the dead letters of a failed shard, stored under *key*, each as its stored JSON object.

    Raises:
        DamagedOutputError: A line is not a dead letter.
    """
    try:
        for line in lines_of(checkpoint.records, key):
            yield dead_letter_in(line)
    except ValueError as error:
        raise DamagedOutputError(
            f"{key} is damaged; `batchrunner retry SPEC` collects them again"
        ) from error


def _raw(raw: bytes) -> dict[str, str]:
    """Return the field for the row's bytes: text, or base64 if they are not UTF-8."""
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}
