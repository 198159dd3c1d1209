"""Background compaction: a thread of a writer merges small files, so that reads stay fast."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Iterable
from time import monotonic

from batchrunner.analytics.catalog import Catalog, claim_catalog, newest_catalog
from batchrunner.analytics.compaction import CompactionReport
from batchrunner.analytics.layout import is_written, stem_in
from batchrunner.analytics.record import RUNS
from batchrunner.errors import BatchRunnerError
from batchrunner.storage import Storage

COMPACTION_TRIGGER = 128
"""A writer compacts if `runs` has more files than this that `write` made: a reader opens so many in
0.1 s."""

WRITES_PER_CHECK = 16
"""About one write in this many lists `runs` and counts its files; the hash in the name of the new
file decides."""

_CLAIM_IGNORED_AT = 16
"""Above this many times `COMPACTION_TRIGGER`, a writer compacts although another one holds the
claim: that one may have died."""

_MAX_ROUNDS = 16
"""Most rounds after one check; the next check, by any writer, continues."""

_SECONDS_AT_EXIT = 60.0
"""How long a process waits at its exit for the round of its compaction. Processes that write a single run would
otherwise never finish one, and a store may have no other writers. And a thread that the end of Python meets inside
Arrow aborts the process, whose exit code then says that it failed: so this is for storages that hang only."""

_log = logging.getLogger(__name__)
_running: set[threading.Thread] = set()
_at_exit = threading.Event()


class BackgroundCompaction:
    """Compacts a store in a daemon thread, after some of the writes.

    A write neither waits for the thread nor fails with it. The thread may die with its process at
    any instant: no run is lost, and a later compaction deletes its unfinished files.

    Args:
        storage: The storage of the store.
        compact: Runs one compaction round.
    """

    def __init__(self, storage: Storage, compact: Callable[[], CompactionReport]) -> None:
        self._storage, self._compact = storage, compact
        self._thread: threading.Thread | None = None

    def after_write(self, new: Iterable[str]) -> None:
        """Start the thread if one of the *new* keys makes a check due. Returns at once."""
        # After a fork the child has no such thread: `is_alive` is False there.
        if (self._thread is not None and self._thread.is_alive()) or not any(map(_is_due, new)):
            return
        self._thread = threading.Thread(
            target=self._work, name="batchrunner-compaction", daemon=True
        )
        # Registered before it starts, so that an exit at this instant waits for it.
        _running.add(self._thread)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is shutting down, or the limit of threads is reached
            _running.discard(self._thread)

    def compact_if_needed(self) -> None:
        """Compact until at most `COMPACTION_TRIGGER` files of `runs` that `write` made are left.

        Leave the work to another writer if that one has claimed the next catalog.

        Raises:
            UnsafeStorageError: The storage lets a second writer replace an object.
            StorageError: A request failed. Readers still see every run once.
        """
        for turn in range(_MAX_ROUNDS):
            catalog = newest_catalog(self._storage)
            count = self._count_written(catalog)
            if count <= COMPACTION_TRIGGER or not self._is_ours(catalog.number + 1, count):
                return
            if turn == 0:  # a catalog that a second writer could replace would lose runs
                self._storage.check_conditional_writes()
            report = self._compact()
            extra = {"action": "runs_compacted", "replaced": report.replaced}
            _log.info("compacted %d files of %s", report.replaced, self._storage.uri, extra=extra)
            if report.lost_race or not report.replaced:
                return  # another compaction is at work, or a damaged file blocks them all
            if _at_exit.is_set():
                return

    def _count_written(self, catalog: Catalog) -> int:
        listed = (entry.key for entry in self._storage.list(RUNS))
        return sum(is_written(key) and key not in catalog.replaced for key in listed)

    def _is_ours(self, number: int, count: int) -> bool:
        """Return whether this writer is to make catalog *number*: the first that claims it is.

        A claimant may have died, so the claim is ignored when there are far too many files.
        """
        return count > COMPACTION_TRIGGER * _CLAIM_IGNORED_AT or claim_catalog(
            self._storage, number
        )

    def _work(self) -> None:
        try:
            self.compact_if_needed()
        except (BatchRunnerError, OSError, RuntimeError, ValueError, MemoryError) as error:
            # Not a warning: the runs are recorded, and a later write compacts.
            _log.info("compacted nothing: %s", error, extra={"action": "compaction_failed"})
        finally:
            _running.discard(threading.current_thread())


def _is_due(key: str) -> bool:
    return key.startswith(f"{RUNS}/") and int(stem_in(key)[-8:], 16) % WRITES_PER_CHECK == 0


@atexit.register
def _wait_for_threads() -> None:
    _at_exit.set()
    deadline = monotonic() + _SECONDS_AT_EXIT
    for thread in list(_running):
        thread.join(max(0.0, deadline - monotonic()))
