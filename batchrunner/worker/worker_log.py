"""What a worker prints and logs, kept with the run: its node may be gone when somebody asks."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections import deque
from datetime import UTC, datetime
from typing import Self

from batchrunner.errors import StorageError
from batchrunner.spec import scrubbed
from batchrunner.storage import Storage
from batchrunner.worker.capture import listen, stop_listening

FOLDER = "logs"
FIRST_BYTES, LAST_BYTES = 64 << 10, 192 << 10
"""What is kept of a worker: its beginning, as a model says there what it lacks, and its end."""

_RAYS_OWN = (":task_name:", ":actor_name:")
"""Lines by which Ray tells the tasks of one process apart in its own files."""

_LONGEST_LINE = 8 << 10
_EVERY_SECONDS = 5.0
_log = logging.getLogger(__name__)


class WorkerLog:
    """Keeps the lines that this process prints and logs, each with the time, as one object.

    The object is rewritten every few seconds while there is news, and by `keep`. A worker that is
    killed loses what it said since. Safe in several threads.
    """

    def __init__(self, *, but: frozenset[threading.Thread] = frozenset()) -> None:
        """Prepare to keep what any thread says, *but* those."""
        self._lines, self._but = _Lines(), but
        self._storage: Storage | None = None
        self._key = ""
        self._kept = 0
        self._keeping = threading.Lock()
        self._done = threading.Event()

    def begin(self) -> Self:
        """Listen. What is heard is kept once `keep_in` has said where."""
        listen(self._hear)
        return self

    def keep_in(self, storage: Storage, *, session: str) -> None:
        """Keep what was heard, and all that follows, in *storage*."""
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._storage, self._key = storage, f"{FOLDER}/{session}/{name}.log"
        threading.Thread(target=self._keep_keeping, daemon=True, name="worker log").start()

    def keep(self) -> None:
        """Make durable what was heard so far. A store that fails costs the log, and nothing else."""
        with self._keeping:
            total = self._lines.total
            if self._storage is None or total == self._kept:
                return
            try:
                self._storage.put(self._key, _in_utf8(scrubbed(self._lines.text())))
            except StorageError as error:
                _log.debug("the log could not be kept: %s", error)
            else:
                self._kept = total

    def end(self) -> None:
        """Listen no more, and keep what was heard. Idempotent."""
        self._done.set()
        stop_listening(self._hear)
        self._lines.end()
        self.keep()

    def _hear(self, text: str) -> None:
        if threading.current_thread() not in self._but:
            self._lines.hear(text)

    def _keep_keeping(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self.keep()


class _Lines:
    """The first and the last lines of what is heard."""

    def __init__(self) -> None:
        self.total = 0
        self._first: list[str] = []
        self._last: deque[str] = deque()
        self._sizes = [0, 0]
        self._gap_at, self._left_out = "", 0
        self._open = ""
        # A signal handler or a finalizer may print while its own thread is in here.
        self._lock = threading.RLock()

    def hear(self, text: str) -> None:
        with self._lock:
            self.total += len(text)
            *whole, rest = (self._open + text).split("\n")
            for line in whole:
                self._add(line)
            self._open = _last_state(rest)[:_LONGEST_LINE]

    def end(self) -> None:
        """Take what has no newline yet for a line."""
        with self._lock:
            if self._open:
                self._add(self._open)
            self._open = ""

    def text(self) -> str:
        with self._lock:
            gap = (
                [f"{self._gap_at} … {self._left_out:,} lines left out\n"] if self._left_out else []
            )
            unended = [_stamped(self._open)] if self._open else []
            return "".join([*self._first, *gap, *self._last, *unended])

    def _add(self, line: str) -> None:
        if line.startswith(_RAYS_OWN):
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
    return text.encode(errors="backslashreplace")  # of file names that are no UTF-8, for one


def _last_state(line: str) -> str:
    """Return what a line shows in the end: progress bars write over themselves."""
    return line.rstrip("\r").rpartition("\r")[2]


def _stamped(line: str) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return f"{now} {line}\n"
