"""The thread in which all pools of a worker change: what happens to their workers, one event at a time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

Action = Callable[[], None]


class PoolThread:
    """Runs actions in the order in which they come, and *tick* whenever *seconds* have passed.

    Ray calls back in a thread of its own that must not wait; other threads submit calls and ask for
    answers. Here, nothing that an action changes is changed by another thread.
    """

    def __init__(
        self, tick: Action, *, seconds: float, failed: Callable[[Exception], None]
    ) -> None:
        """Prepare the thread; *failed* is called in it with what an action raises."""
        self._tick, self._seconds, self._failed = tick, seconds, failed
        self._actions: queue.SimpleQueue[Action | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stage pools")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def do(self, action: Action) -> None:
        """Run *action* in the thread, after those before it. Safe in any thread."""
        self._actions.put(action)

    def end(self, seconds: float) -> None:
        """Run the actions that wait, then end; wait for that at most so many *seconds*."""
        self._actions.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        due = time.monotonic() + self._seconds
        while True:
            try:
                action = self._actions.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                action = self._tick
            if action is None:
                return
            self._contained(action)
            if time.monotonic() >= due:
                if action is not self._tick:
                    self._contained(self._tick)
                due = time.monotonic() + self._seconds

    def _contained(self, action: Action) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds
            self._failed(error)
