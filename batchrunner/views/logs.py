"""What the workers of a run printed and logged, from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.incarnations import WORKER_LOGS
from batchrunner.storage import Entry, Storage


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a worker printed or logged.

    Attributes:
        at: When it was written, by the worker's own clock; ISO 8601, UTC.
        session: The driver session that the worker belonged to.
        worker: Host and process id of the worker.
        text: The line.
    """

    at: str
    session: str
    worker: str
    text: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def has_logs(storage: Storage) -> bool:
    """Return whether a worker has printed or logged anything. Lists once.

    Raises:
        StorageError: The checkpoint in *storage* cannot be listed.
    """
    return any(True for _ in storage.list(WORKER_LOGS, recursive=True))


def log_lines(checkpoint: Checkpoint, *, session: str = "") -> list[LogLine]:
    """Return the lines of all workers, in the order of their clocks; only of *session* if given.

    The first 64 KiB and the last 192 KiB of each worker's lines are stored. Secrets that the spec names
    are `***`.

    Raises:
        StorageError: The checkpoint cannot be read.
    """
    entries = checkpoint.storage.list(f"{WORKER_LOGS}/{session}".rstrip("/"), recursive=True)
    lines = [line for entry in entries for line in _lines(checkpoint, entry)]
    return sorted(lines, key=lambda line: line.at)


def _lines(checkpoint: Checkpoint, entry: Entry) -> Iterator[LogLine]:
    _, session, name = entry.key.split("/", 2)
    worker = name.removesuffix(".log").rpartition("-")[0]
    text = checkpoint.storage.get(entry.key).decode(errors="replace")
    for line in text.split("\n")[:-1]:
        at, _, written = line.partition(" ")
        yield LogLine(at, session, worker, written)
