"""How many rows fit into memory in one call, as far as failed calls have shown."""

from __future__ import annotations

import logging
import math

_log = logging.getLogger(__name__)


class Room:
    """The most rows of a call, of one caller for its life: other shards need no failure to find it.

    Attributes:
        rows: The most rows of a call; infinity as long as memory has held all batches.
    """

    def __init__(self, setting: str = "execution.batch_size") -> None:
        """Know nothing yet of a size that the spec gives as *setting*."""
        self._setting = setting
        self.rows: float = math.inf
        self._reported: float = math.inf

    def report(self) -> None:
        """Log a number of rows that is smaller than the last one that was logged."""
        if self.rows >= self._reported:
            return
        self._reported = self.rows
        _log.warning(
            "memory did not hold a batch of that size: this worker goes on with at most %d rows a call. To "
            "begin with that, set %s: %d",
            self.rows,
            self._setting,
            self.rows,
        )
