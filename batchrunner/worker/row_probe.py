"""Keeps code that fails every row from being called for each of them.

As long as no call has ever succeeded, the first row of a batch that fails is the *probe*. While it is tried
again no other row of a batch is, and once its attempts are used up, the rows of batches are left alone until a
row that is called alone has an answer.
"""

from __future__ import annotations

import threading

from batchrunner.worker.row_call import RowCall


class Probe:
    """The probe of one capability, until a call succeeds.

    Attributes:
        has_succeeded: Whether a call has.
    """

    def __init__(self) -> None:
        self.has_succeeded = False
        self._call: RowCall | None = None
        self._decided = threading.Event()
        """Set once there is no probe, its attempts are used up, or a call has succeeded."""
        self._decided.set()

    @property
    def doubt(self) -> Exception | None:
        """The error for which rows are left alone: that of the probe; None if there is none."""
        return None if self.has_succeeded or self._call is None else self._call.error

    @property
    def is_hopeless(self) -> bool:
        """Whether the rows of batches are to be left alone."""
        return not self.has_succeeded and self._call is not None and self._call.is_settled

    def parks(self, call: RowCall) -> bool:
        """Return whether *call* has to wait for what comes of the probe."""
        return not self.has_succeeded and self._call is not None and self._call is not call

    def succeed(self) -> None:
        """Note that a call has succeeded."""
        if not self.has_succeeded:
            self.has_succeeded = True
            self._decided.set()

    def take(self, call: RowCall) -> None:
        """Make *call*, of a row of a batch, the probe if it is the first that fails."""
        if not self.has_succeeded and self._call is None and call.attempts:
            self._call = call
            if not call.is_settled:
                self._decided.clear()

    def end(self, call: RowCall) -> None:
        """Note that nothing makes *call* any more."""
        if call is self._call:
            self._decided.set()

    def is_decided_against(self) -> bool:
        """Wait until the probe is decided; return whether the other rows are to be left alone."""
        self._decided.wait()
        return not self.has_succeeded and self._call is not None

    def renew(self) -> None:
        """Forget the probe: what failed before decides nothing any more."""
        if not self.has_succeeded:
            self._call = None
            self._decided.set()

    def close(self) -> None:
        """End what waits for a decision."""
        self._decided.set()
