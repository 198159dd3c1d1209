"""The other side of `isolation`: a process that calls a capability and answers through a pipe."""

from __future__ import annotations

import contextlib
import pickle
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

from batchrunner.errors import CapabilityImportError


def main(receive: int, send: int) -> None:
    """Build the capability of the work that comes first, then answer calls until there are none."""
    inbox: Connection[Any, Any] = Connection(receive, writable=False)
    outbox: Connection[Any, Any] = Connection(send, readable=False)
    from batchrunner.worker.process import direct_caller

    try:
        work = pickle.loads(inbox.recv_bytes())  # noqa: S301 - of our own parent
        caller = direct_caller(work, work.schema())
    except (CapabilityImportError, ImportError, AttributeError) as error:
        outbox.send(str(error))
        return
    outbox.send("")
    while True:
        try:
            batch = inbox.recv()
        except EOFError:
            return
        outbox.send(_answer(caller, batch))


def _answer(caller: Any, batch: Any) -> tuple[str, Any]:
    try:
        return "made", caller.submit(batch)()
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        return "raised", (type(error).__name__, str(error), traceback.format_exc())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        main(*map(int, sys.argv[1:]))
