"""What a job says while it runs, kept where others can read it."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any, Self, TextIO

from batchrunner.errors import ObjectNotFoundError, StorageError
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.spec.secrets import scrubbed
from batchrunner.storage import Storage, open_storage

KEPT_BYTES = 256 << 10
"""Of what is said; the beginning is dropped first."""

_EVERY_SECONDS = 5.0
_log = logging.getLogger(__name__)


class JobLog:
    """Keeps stdout, stderr and log records of this process inside the block.

    Args:
        keep: Called with everything so far, every few seconds and at the end, when there is news.
    """

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._keep = keep
        self._said = bytearray()
        self._kept = 0
        self._total = 0
        # A signal handler or a finalizer may print while its own thread is in here.
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(redirect_stdout(_Tee(sys.stdout, self._say)))
        self._stack.enter_context(redirect_stderr(_Tee(sys.stderr, self._say)))
        handler = logging.StreamHandler(_Tee(None, self._say))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger()
        logger.addHandler(handler)
        self._stack.callback(logger.removeHandler, handler)
        sessions = logging.getLogger("batchrunner.driver.session")  # how a batch goes
        self._stack.callback(sessions.setLevel, sessions.level)
        sessions.setLevel(logging.INFO)
        thread = threading.Thread(target=self._keep_keeping, daemon=True, name="job log")
        thread.start()
        self._stack.callback(thread.join)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._stack.close()
        self._keep_news()

    def _say(self, text: str) -> None:
        with self._lock:
            data = text.encode(errors="backslashreplace")
            self._said += data
            self._total += len(data)
            del self._said[:-KEPT_BYTES]

    def _keep_keeping(self) -> None:
        while not self._done.wait(_EVERY_SECONDS):
            self._keep_news()

    def _keep_news(self) -> None:
        with self._lock:
            said, total = bytes(self._said), self._total
        if total == self._kept:
            return
        try:
            self._keep(_shown(said, cut=total > len(said)))
        except StorageError as error:  # nobody's job fails for its log
            _log.debug("the log could not be kept: %s", error)
        else:
            self._kept = total


def write_simple_log(store: AnalyticsStoreConfig, job_id: str, text: bytes) -> None:
    """Keep what a job of "ray-simple" said so far, in place of what was kept before."""
    _simple_logs(store).put(f"{job_id}.log.txt", text)


def read_simple_log(store: AnalyticsStoreConfig, job_id: str) -> bytes:
    """Return what a job of "ray-simple" said; nothing when it was silent."""
    with contextlib.suppress(ObjectNotFoundError):
        return _simple_logs(store).get(f"{job_id}.log.txt")
    return b""


def _simple_logs(store: AnalyticsStoreConfig) -> Storage:
    place = f"{store.uri.rstrip('/')}/_jobs/ray-simple"
    return open_storage(place, storage_options=store.storage_options)


def _shown(said: bytes, *, cut: bool) -> bytes:
    """Return *said* without known secrets. Of one that the cut went through half would stay."""
    whole = said[said.find(b"\n") + 1 :] if cut else said
    return scrubbed(whole.decode(errors="replace")).encode()


class _Tee(io.TextIOBase):
    """Writes to two places."""

    def __init__(self, first: TextIO | None, second: Callable[[str], None]) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        if self._first is not None:
            self._first.write(text)
        self._second(text)
        return len(text)

    def flush(self) -> None:
        if self._first is not None:
            self._first.flush()

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)
