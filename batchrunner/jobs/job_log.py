"""The log of a job: what it prints and logs while it runs, stored for other processes to read."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from batchrunner.errors import ObjectNotFoundError, StorageError
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.spec.secrets import scrubbed
from batchrunner.storage import Storage, open_storage
from batchrunner.worker.capture import listen, stop_listening

KEPT_BYTES = 256 << 10
"""The last bytes of a log that are kept; the beginning is dropped."""

_EVERY_SECONDS = 5.0
_OURS = logging.getLogger("batchrunner")
_SESSIONS = logging.getLogger("batchrunner.driver.session")
_log = logging.getLogger(__name__)


class JobLog:
    """Stores stdout, stderr and log records of the block. If storing fails, the job goes on.

    Args:
        store: Called with the whole log so far, every few seconds and at the end, if it has grown.
        own_thread: Take only what the thread that enters the block prints and logs: for jobs that
            share a process.
    """

    def __init__(self, store: Callable[[bytes], None], *, own_thread: bool = False) -> None:
        self._store, self._own_thread = store, own_thread
        self._thread = threading.current_thread()
        self._text = bytearray()
        self._stored_total = self._total = 0
        # Reentrant: a signal handler or a finalizer may print while its own thread holds the lock.
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._thread = threading.current_thread()
        listen(self._hear)
        self._stack.callback(stop_listening, self._hear)
        handler = _Handler(self._hear)  # `listen` leaves out batchrunner's own records
        _OURS.addHandler(handler)
        self._stack.callback(_OURS.removeHandler, handler)
        if not self._own_thread:  # the level is the process's, not the thread's
            self._stack.callback(_SESSIONS.setLevel, _SESSIONS.level)
            _SESSIONS.setLevel(logging.INFO)  # the progress of a batch
        thread = threading.Thread(target=self._store_regularly, daemon=True, name="job log")
        thread.start()
        self._stack.callback(thread.join)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._stack.close()
        self._store_news()

    def _hear(self, text: str) -> None:
        if self._own_thread and threading.current_thread() is not self._thread:
            return
        with self._lock:
            data = text.encode(errors="backslashreplace")
            self._text += data
            self._total += len(data)
            del self._text[:-KEPT_BYTES]

    def _store_regularly(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self._store_news()

    def _store_news(self) -> None:
        with self._lock:
            text, total = bytes(self._text), self._total
        if total == self._stored_total:
            return
        try:
            self._store(_shown(text, cut=total > len(text)))
        except StorageError as error:
            _log.debug("the log could not be stored: %s", error)
        else:
            self._stored_total = total


class _Handler(logging.Handler):
    """Formats log records as lines with the time, and passes them to *hear*."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(self.format(record) + "\n")


def write_simple_log(store: AnalyticsStoreConfig, job_id: str, text: bytes) -> None:
    """Store the log of a job of "ray-simple", in place of an earlier one."""
    _simple_logs(store).put(f"{job_id}.log.txt", text)


def read_simple_log(store: AnalyticsStoreConfig, job_id: str) -> bytes:
    """Return the log of a job of "ray-simple"; empty if none was stored."""
    with contextlib.suppress(ObjectNotFoundError):
        return _simple_logs(store).get(f"{job_id}.log.txt")
    return b""


def _simple_logs(store: AnalyticsStoreConfig) -> Storage:
    folder = f"{store.uri.rstrip('/')}/_jobs/ray-simple"
    return open_storage(folder, storage_options=store.storage_options)


def _shown(text: bytes, *, cut: bool) -> bytes:
    """Return *text* without known secrets; without its first line if that was *cut*.

    Half a secret would not be recognised.
    """
    whole = text[text.find(b"\n") + 1 :] if cut else text
    return scrubbed(whole.decode(errors="replace")).encode()
