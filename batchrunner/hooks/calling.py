"""Calls the code of hooks: makes them, looks their methods up, and ends the forks that return from it."""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn, TypeVar

from batchrunner.errors import CannotStartError
from batchrunner.hooks.contract import METHODS
from batchrunner.user_code import contained

T = TypeVar("T")
_log = logging.getLogger(__name__)

_LONG_SECONDS = 5.0
"""How long a hook is made before a message says which one the run waits for."""


def methods_of(hook: object) -> dict[str, Callable[[Any], object]]:
    """Return the methods of *hook* by their names; one that cannot be read raises when it is called."""
    found = {}
    for name in METHODS:
        try:
            method = contained(partial(getattr, hook, name, None))
        except Exception as error:  # noqa: BLE001 - a property is the user's code, too
            method = partial(_raise, error)
        if callable(method):
            found[name] = method
    return found


def contained_here(call: Callable[[], T]) -> T:
    """As `contained`; a fork that *call* makes ends when it returns from it.

    It would go on as a second driver: call what waits for the hook, and fork again.

    Raises:
        Exception: *call* raised it.
    """
    process, status = os.getpid(), 1
    try:
        result = contained(call)
        status = 0
        return result
    finally:
        if os.getpid() != process:
            os._exit(status)


def made_in_time(name: str, make: Callable[[], T], *, seconds: float) -> T:
    """Return what *make* returns: the hook called *name*. Made in a thread, left behind after *seconds*.

    Raises:
        CannotStartError: It took longer.
        Exception: *make* raised it.
    """
    made: Future[T] = Future()
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=lambda: context.run(_settle, made, make), daemon=True, name=f"making hook {name}"
    )
    thread.start()
    thread.join(min(_LONG_SECONDS, seconds))
    if thread.is_alive():
        _log.warning("waiting for the hook %s to be made, for up to %.3g s", name, seconds)
        thread.join(seconds - _LONG_SECONDS)
    if thread.is_alive():
        raise CannotStartError(
            f"the hook {name!r} was not made within {seconds:.3g} s (execution.grace_period): its "
            "constructor hangs; let it connect when it is first called, or remove its section "
            "under `hooks`"
        )
    return made.result()


def _raise(error: Exception, _: object) -> NoReturn:
    raise error


def _settle(made: Future[T], make: Callable[[], T]) -> None:
    try:
        made.set_result(contained_here(make))
    except Exception as error:  # noqa: BLE001 - the caller raises it
        made.set_exception(error)
