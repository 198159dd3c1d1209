"""Rows set aside: what each was, where it stood, and why it could not go through."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.documents import record_lines
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.formats.chunk import BadRow, Position, UnreadableRowError
from batchrunner.shard import Shard
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import place_in_code

_MAX_MESSAGE = 2000
MAX_SHOWN_MESSAGE, MAX_SHOWN_ROW = 300, 200
_TEXTS = ("source", "unit", "stage", "error", "message")
_WAY_OUT = "batchrunner verify --repair SPEC sets it aside, and the next run makes its shard again"


class Stage(StrEnum):
    """Where on its way a row was stopped."""

    READ = "read"
    CAPABILITY = "capability"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row set aside with its error.

    Attributes:
        shard: Id of the shard that it belongs to.
        source: URI of its file.
        position: Where it stands there, and how it looks.
        stage: Where it was stopped.
        error: Type of the error.
        message: What the error says.
        code: File and line of the user's code that it came from; empty when it came from none.
        traceback: Of the user's code; kept with the first row of a shard that failed in this way.
    """

    shard: int
    source: str
    position: Position
    stage: Stage
    error: str
    message: str
    code: str = ""
    traceback: str = ""

    @classmethod
    def unreadable(cls, shard: Shard, bad: BadRow) -> DeadLetter:
        """Return the dead letter of a row that could not be read."""
        reason = scrubbed(bad.reason)
        return cls(shard.id, shard.uri, bad.position, Stage.READ, "UnreadableRow", reason)

    @classmethod
    def refused(cls, shard: Shard, position: Position, error: BaseException) -> DeadLetter:
        """Return the dead letter of a row that the capability, or the sink, did not take."""
        name = getattr(error, "type_name", type(error).__name__)
        message = writable(error)[:_MAX_MESSAGE]
        unread = isinstance(error, UnreadableRowError)  # the capability has not seen it
        stage = Stage.READ if unread else Stage.CAPABILITY
        code = place_in_code(error)
        return cls(shard.id, shard.uri, position, stage, name, message, code)

    @property
    def kind(self) -> tuple[str, str]:
        """What rows have in common that failed in the same way: type of the error, and place."""
        return self.error, self.code

    @property
    def why(self) -> str:
        """Return type, message and place of the error, in one line."""
        told = f"{self.error}: {self.message}".rstrip(": ")
        what = self.message if self.stage is Stage.READ else told
        place = f" (at {self.code})" if self.code else ""
        return f"{one_line(what, most=MAX_SHOWN_MESSAGE)}{place}"

    @property
    def row(self) -> str:
        """Return how the row looks, in one line; not all of it when it is long."""
        return one_line(self.position.raw.decode(errors="replace"), most=MAX_SHOWN_ROW)

    def to_line(self) -> bytes:
        """Return the dead letter as it is kept: a JSON object in a line."""
        fields: dict[str, Any] = {
            "version": 1,
            "shard": self.shard,
            "source": self.source,
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
    """Return *text*, of the user's code, as it may be kept: no secrets, and nothing but UTF-8.

    Cut it only afterwards: half a secret is not known as one.
    """
    return scrubbed(str(text).encode(errors="backslashreplace").decode())


def one_line(text: str, *, most: int) -> str:
    """Return at most so many characters of *text* that a terminal shows and does not obey."""
    words = " ".join(text.split())
    shown = words if len(words) <= most else f"{words[:most]}…"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def dead_letters_of(checkpoint: Checkpoint, sentinel: Sentinel) -> Iterator[dict[str, Any]]:
    """Yield the dead letters that *sentinel* names, as they are kept.

    Raises:
        DamagedOutputError: They are not all there, or not whole.
    """
    if not sentinel.errors:
        return
    key = f"errors/{sentinel.errors}"
    where, count = f"{checkpoint.records.uri}/{key}", 0
    try:
        for line in record_lines(checkpoint.records, key):
            yield dead_letter_in(line)
            count += 1
    except (ObjectNotFoundError, ValueError) as error:
        raise DamagedOutputError(f"{where} is damaged or gone; {_WAY_OUT}") from error
    if count != sentinel.rows_failed:
        raise DamagedOutputError(
            f"{where} has {count:,} rows where its sentinel says {sentinel.rows_failed:,}; {_WAY_OUT}"
        )


def dead_letter_in(line: bytes) -> dict[str, Any]:
    """Return the dead letter in *line*, as it is kept.

    Raises:
        ValueError: It is none.
    """
    dead_letter = orjson.loads(line)
    if isinstance(dead_letter, dict) and all(
        isinstance(dead_letter.get(key), str) for key in _TEXTS
    ):
        return dead_letter
    raise ValueError("no dead letter")


def _raw(raw: bytes) -> dict[str, str]:
    """Return the row as text, or in base64 when it is none."""
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}
