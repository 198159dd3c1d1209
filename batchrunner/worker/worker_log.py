"""The log of a worker: what it prints and logs, stored in the checkpoint, as nodes get lost."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Self

from batchrunner.checkpoint.incarnations import WORKER_LOGS
from batchrunner.errors import StorageError
from batchrunner.spec import scrubbed
from batchrunner.storage import Storage
from batchrunner.worker.capture import listen, stop_listening

FIRST_BYTES, LAST_BYTES = 64 << 10, 192 << 10
"""How much of a log is stored: its beginning, where a model logs what is missing, and its end."""

_RAY_PREFIXES = (":task_name:", ":actor_name:")
"""Beginnings of lines that Ray prints to separate the tasks of a process; they are left out."""

_LONGEST_LINE = 8 << 10
_EVERY_SECONDS = 5.0
_log = logging.getLogger(__name__)


class WorkerLog:
    """Stores the lines that this process prints and logs as one object, each line with its time.

    The object is rewritten every few seconds if there are new lines, and by `store`. A worker that
    is killed loses the lines since the last rewrite. Safe in several threads.
    """

    def __init__(self, *, ignored: frozenset[threading.Thread] = frozenset()) -> None:
        """Prepare to store the lines of all threads except those in *ignored*."""
        self._lines, self._ignored = _KeptLines(), ignored
        self._storage: Storage | None = None
        self._key = ""
        self._stored = 0
        self._storing = threading.Lock()
        self._done = threading.Event()

    def begin(self) -> Self:
        """Start listening. Lines are stored once `store_in` has been called."""
        listen(self._listen)
        return self

    def store_in(self, storage: Storage, *, session: str) -> None:
        """Store all lines, earlier and later ones, in *storage* below the folder of *session*."""
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._storage, self._key = storage, f"{WORKER_LOGS}/{session}/{name}.log"
        threading.Thread(target=self._store_regularly, daemon=True, name="worker log").start()

    def store(self) -> None:
        """Store the lines so far, durably. Best effort: logs an error of storage, never raises."""
        with self._storing:
            total = self._lines.total
            if self._storage is None or total == self._stored:
                return
            try:
                self._storage.put(self._key, _in_utf8(scrubbed(self._lines.text())))
            except StorageError as error:
                _log.debug("the log could not be stored: %s", error)
            else:
                self._stored = total

    def end(self) -> None:
        """Stop listening, and store the lines so far. Idempotent."""
        self._done.set()
        stop_listening(self._listen)
        self._lines.end()
        self.store()

    def _listen(self, text: str) -> None:
        if threading.current_thread() not in self._ignored:
            self._lines.add(text)

    def _store_regularly(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self.store()


class _KeptLines:
    """Keeps the first and the last lines of a text that is added in pieces."""

    def __init__(self) -> None:
        self.total = 0
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._sizes = [0, 0]
        self._gap_at, self._left_out = "", 0
        self._open = ""
        # Reentrant: a signal handler or a finalizer may print while its own thread is in here.
        self._lock = threading.RLock()

    def add(self, text: str) -> None:
        with self._lock:
            self.total += len(text)
            *whole, rest = (self._open + text).split("\n")
            for line in whole:
                self._add_line(line)
            self._open = _last_state(rest)[:_LONGEST_LINE]

    def end(self) -> None:
        """Add the text after the last newline as a line."""
        with self._lock:
            if self._open:
                self._add_line(self._open)
            self._open = ""

    def text(self) -> str:
        with self._lock:
            gap = (
                [f"{self._gap_at} … {self._left_out:,} lines left out\n"] if self._left_out else []
            )
            unended = [_stamped(self._open)] if self._open else []
            return "".join([*self._first, *gap, *self._last, *unended])

    def _add_line(self, line: str) -> None:
        if line.startswith(_RAY_PREFIXES):
            return
        line = _stamped(_last_state(line)[:_LONGEST_LINE])
        if not self._last and self._sizes[0] + len(line) <= FIRST_BYTES:
            self._first.append(line)
            self._sizes[0] += len(line)
            return
        self._last.append(line)
        self._sizes[1] += len(line)
        while self._sizes[1] > LAST_BYTES:
            dropped = self._last.popleft()
            self._sizes[1] -= len(dropped)
            self._gap_at, self._left_out = dropped.partition(" ")[0], self._left_out + 1


def _in_utf8(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # file names, for example, need not be UTF-8


def _last_state(line: str) -> str:
    """Return the text of *line* after its last carriage return: progress bars overwrite themselves."""
    return line.rstrip("\r").rpartition("\r")[2]


def _stamped(line: str) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return f"{now} {line}\n"
