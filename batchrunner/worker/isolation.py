"""Calling a capability in a process of its own, which may die or hang there without harm.

It serves what has killed a worker before, and calls that have a time limit. The price is the way of
the rows through a pipe, and a second copy of the model.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.worker.batch import Batch
from batchrunner.worker.calling import Answer, Pieces

if TYPE_CHECKING:
    import pyarrow as pa


class CallRaisedError(Exception):
    """The capability raised over there; this says what."""

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(message)
        self.type_name, self.traceback = type_name, traceback


class CallLostError(Exception):
    """There will be no answer: the call took the process with it, or was not over in time."""

    type_name = "CapabilityDied"


class CallTimedOutError(CallLostError):
    """The call was not over in time."""

    type_name = "CapabilityTimedOut"


@dataclass(frozen=True, slots=True)
class SentBatch:
    """The rows of a batch on their way to the other process, as the capability's format needs them."""

    content: list[Row] | pa.Table

    def rows(self) -> list[Row]:
        """As `Batch.rows`; only for content that is rows."""
        return cast(list[Row], self.content)

    def in_format(self, batch_format: str) -> Any:
        """As `Batch.in_format`."""
        from batchrunner.worker.batch import in_format

        return (
            self.content
            if isinstance(self.content, list)
            else in_format(self.content, batch_format)
        )


class IsolatedCaller:
    """Calls the capability over there, a call at a time; a new process takes the place of a dead one."""

    ahead = 1

    def __init__(self, work: bytes, *, by_rows: bool, timeout: float | None) -> None:
        """Call the capability of the pickled *work*, for at most *timeout* seconds each."""
        self._work, self._by_rows, self._timeout = work, by_rows, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._to: Connection[Any, Any]
        self._from: Connection[Any, Any]

    def submit(self, batch: Batch) -> Answer:
        """Return what makes the call when it is asked for its answer."""
        return lambda: self._call(batch)

    def _call(self, batch: Batch) -> Pieces:
        if self._process is None:
            self._start()
        sent = SentBatch(batch.rows() if self._by_rows else batch.table())
        try:
            self._to.send(sent)
            in_time = self._from.poll(self._timeout)
            reply: tuple[str, Any] = self._from.recv() if in_time else ("late", None)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CallLostError(self._epitaph()) from error
        kind, answer = reply
        if kind == "late":
            self.close()
            raise CallTimedOutError(f"the call took more than {self._timeout:g} s")
        if kind == "raised":
            raise CallRaisedError(*answer)
        pieces: Pieces = answer
        return pieces

    def _start(self) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "batchrunner.worker.isolated", str(theirs_in), str(theirs_out)],
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._from, self._to = (
            Connection(ours_in, writable=False),
            Connection(ours_out, readable=False),
        )
        try:
            self._to.send_bytes(self._work)
            problem = self._from.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CapabilityImportError(
                f"the capability cannot be built: {self._epitaph()}"
            ) from error
        if problem:
            self.close()
            raise CapabilityImportError(problem)

    def _epitaph(self) -> str:
        code = self._process.wait() if self._process else 0
        self.close()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the call ended its process ({how})"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._to.close()
                self._from.close()
            self._process.kill()
            self._process.wait()
            self._process = None
