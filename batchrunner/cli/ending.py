"""Ends the process in time after its last command, even if code of the user's holds up its exit."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import NoReturn

_exit = os._exit  # as it is now: the local engine replaces it while the user's code runs
_within: float | None = None
_is_json = False


def end_within(seconds: float, *, as_json: bool) -> None:
    """Have `exit_with` end this process by force after *seconds*; *as_json* says so in an event."""
    global _within, _is_json
    _within, _is_json = seconds, as_json


def exit_with(code: int) -> NoReturn:
    """Exit with *code*, after `end_within` in time.

    The interpreter joins all threads and calls what is registered for its exit first, Ray's own end
    among them. A hook's thread pool that waits for an answer would hold up a run that is done.
    """
    if _within is not None:
        ends = threading.Thread(target=_force, args=(code, _within), daemon=True, name="ending")
        ends.start()
    sys.exit(code)


def _force(code: int, seconds: float) -> None:
    # Loaded by the session that has ended; here, since no other command should load them.
    from batchrunner.cli.stopping import kill_descendants
    from batchrunner.views.json_events import as_line

    time.sleep(seconds)
    text = (
        f"the process did not end within {seconds:.3g} s after its report, which holds: a thread or an "
        "exit function of a hook or of the capability hangs; ended by force"
    )
    if _is_json:
        text = as_line("log", level="WARNING", logger=__name__, message=text)
    # In a thread, past every buffer: the reader of a pipe may hang, and this one has to end the process.
    threading.Thread(target=_last_words, args=(f"{text}\n".encode(),), daemon=True).start()
    time.sleep(0.1)
    kill_descendants()
    _exit(code)


def _last_words(text: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, text)
