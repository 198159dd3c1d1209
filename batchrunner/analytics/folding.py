"""Compaction by the way: writers keep the written files few, beside their work and never in it."""

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

LOOSE = 128
"""Written files of `runs` that are left alone: so many a reader opens in a tenth of a second."""

TURNS = 16
"""One write in so many, by its hash, looks whether there are more."""

_PATIENCE = 16
"""Times `LOOSE`, until nobody waits any more for the writer that was first to find too many."""

_ROUNDS = 16
"""In a row at most, of one writer: what else there is, others come to."""

_SECONDS_AT_EXIT = 5.0
"""How long the end of a process waits for what it began: or a process of one write never gets
anything done, in a store that knows no others."""

_log = logging.getLogger(__name__)
_at_work: set[threading.Thread] = set()


class Folding:
    """Looks after the number of written files of a store, in a thread, after some of the writes.

    A write neither waits for it nor fails with it: it dies with its process, at any instant, and
    leaves what a compaction leaves that dies.

    Args:
        storage: Of the store.
        compact: Does one round.
    """

    def __init__(self, storage: Storage, compact: Callable[[], CompactionReport]) -> None:
        self._storage, self._compact = storage, compact
        self._thread: threading.Thread | None = None

    def after_write(self, new: Iterable[str]) -> None:
        """Look, if it is the turn of one of the *new* keys. Returns at once."""
        # A thread does not survive a fork, and is not alive in the child.
        if (self._thread is not None and self._thread.is_alive()) or not any(map(_is_turn, new)):
            return
        self._thread = threading.Thread(target=self._work, name="batchrunner-folding", daemon=True)
        _at_work.add(self._thread)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter ends, or has no thread to give
            _at_work.discard(self._thread)

    def fold(self) -> None:
        """Put written files together until they are few.

        Raises:
            UnsafeStoreError: The store lets a second writer replace an object.
            StorageError: It could not be done; whatever was done is harmless.
        """
        for turn in range(_ROUNDS):
            catalog = newest_catalog(self._storage)
            loose = self._loose(catalog)
            if loose <= LOOSE or not self._is_ours(catalog.number + 1, loose):
                return
            if turn == 0:
                self._storage.check_conditional_writes()
            report = self._compact()
            extra = {"action": "runs_folded", "replaced": report.replaced}
            _log.info(
                "put %d files of %s together", report.replaced, self._storage.uri, extra=extra
            )
            if report.lost_race or not report.replaced:
                return  # somebody else is at it, or nothing can be done

    def _loose(self, catalog: Catalog) -> int:
        listed = (entry.key for entry in self._storage.list(RUNS))
        return sum(is_written(key) and key not in catalog.replaced for key in listed)

    def _is_ours(self, number: int, loose: int) -> bool:
        """Tell whether to make catalog *number*: of several writers that find so many, one does.

        It may have died since. When there are far too many, whoever comes does it.
        """
        return loose > LOOSE * _PATIENCE or claim_catalog(self._storage, number)

    def _work(self) -> None:
        try:
            self.fold()
        except (BatchRunnerError, OSError, RuntimeError, ValueError, MemoryError) as error:
            _log.info("folded nothing: %s", error, extra={"action": "folding_failed"})
        finally:
            _at_work.discard(threading.current_thread())


def _is_turn(key: str) -> bool:
    return key.startswith(f"{RUNS}/") and int(stem_in(key)[-8:], 16) % TURNS == 0


@atexit.register
def _finish() -> None:
    end = monotonic() + _SECONDS_AT_EXIT
    for thread in list(_at_work):
        thread.join(max(0.0, end - monotonic()))
