"""Calls one hook in a thread of its own, so that nothing that the hook does reaches the run."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial

from batchrunner.errors import describe
from batchrunner.hooks.calling import contained_here, methods_of
from batchrunner.spec.secrets import scrubbed

_log = logging.getLogger(__name__)

_MOST_WAITING = 10_000
"""Most events that wait for one hook: some megabytes. A hook that hangs must not fill the memory."""

Events = Callable[[], Iterable[object]]
"""Makes the events of one or more calls, in the thread of the hook: it may read the checkpoint."""


class HookThread:
    """Calls the methods of one hook in the order of `put`, and warns about what it raises.

    Attributes:
        name: The hook's name, for warnings.
    """

    def __init__(self, name: str, hook: object, *, log_event: Callable[..., None]) -> None:
        """Start the thread of *hook*; *log_event* appends to the session's event log."""
        self.name, self._log_event = name, log_event
        self._methods = methods_of(hook)
        self._waiting: queue.SimpleQueue[tuple[str, Events] | None] = queue.SimpleQueue()
        self._at = ""
        self._failures: dict[str, int] = {}
        self._dropped = 0
        self._thread = threading.Thread(target=self._call_all, daemon=True, name=f"hook {name}")
        self._thread.start()

    def takes(self, method: str) -> bool:
        """Return whether the hook has *method*."""
        return method in self._methods

    def put(self, method: str, events: Events, *, drops: bool = True) -> None:
        """Have *method* called with each of *events*. Returns at once.

        Args:
            method: Name of the method; a hook without it is not called.
            events: Makes the events.
            drops: Whether to leave them out if too many wait.
        """
        if not self.takes(method):
            return
        if drops and self._waiting.qsize() >= _MOST_WAITING:
            self._warn_of_drop(method)
            return
        self._waiting.put((method, events))

    def close(self) -> None:
        """End the thread when it has made the calls that wait."""
        self._waiting.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait at most *seconds* for the thread to end; return whether it has."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    def warn_of_end(self) -> None:
        """Warn of calls that were dropped, and say how many failed."""
        if self._thread.is_alive():
            left = self._waiting.qsize() - 1  # without the end of the queue
            _log.warning(
                "the hook %s did not return from %s in time%s: it is left behind; the run is as "
                "reported",
                self.name,
                self._at or "its first call",
                f", and {left:,} calls wait" if left > 0 else "",
            )
        repeated = {method: count for method, count in self._failures.items() if count > 1}
        for method, count in repeated.items():
            _log.warning("the hook %s failed %s times in %s", self.name, f"{count:,}", method)
        if self._dropped:
            _log.warning("the hook %s was too slow for %s events", self.name, f"{self._dropped:,}")

    def _call_all(self) -> None:
        for method, events in iter(self._waiting.get, None):
            self._at = method
            try:
                for event in events():
                    contained_here(partial(self._methods[method], event))
            except Exception as error:  # noqa: BLE001 - the user's code may raise anything
                self._warn_of_failure(method, error)

    def _warn_of_failure(self, method: str, error: Exception) -> None:
        self._failures[method] = self._failures.get(method, 0) + 1
        if self._failures[method] == 1:  # a webhook that is down fails for every shard
            why = scrubbed(describe(error))
            self._log_event("hook_failed", hook=self.name, method=method, why=why)
            _log.warning(
                "the hook %s failed in %s, and the run goes on: %s", self.name, method, why
            )

    def _warn_of_drop(self, method: str) -> None:
        self._dropped += 1
        if self._dropped == 1:
            _log.warning(
                "%s events wait for the hook %s: those that do not fit are left out, beginning with a "
                "call of %s",
                f"{_MOST_WAITING:,}",
                self.name,
                method,
            )
