"""Editions: a run made once more, under a name of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from batchrunner.errors import InvalidRecordError, InvalidSpecError

_MOST_LETTERS = 100


def checked_edition(edition: object) -> str:
    """Return *edition*; "" is the first one.

    Raises:
        InvalidSpecError: It is none.
    """
    if not isinstance(edition, str) or edition != edition.strip() or not edition.isprintable():
        raise InvalidSpecError(
            f'edition must be a word or a date, such as "2" or "2026-05", not {edition!r}'
        )
    if len(edition) > _MOST_LETTERS:
        raise InvalidSpecError(f"edition must have at most {_MOST_LETTERS} letters")
    return edition


def run_uid_of(run_uid: str, edition: str) -> str:
    """Return the name of a run in its *edition*: the store keeps the first record of each name."""
    return f"{run_uid}-{edition}" if edition else run_uid


def call_of(call: Callable[[], Any], edition: str) -> Callable[[], Any]:
    """Return what makes the run that *call* makes, in its *edition*; can be pickled as *call* can."""
    return partial(_in_edition, call, edition) if edition else call


def _in_edition(call: Callable[[], Any], edition: str) -> _RunOfEdition:
    return _RunOfEdition(checked_run(call()), edition)


class _RunOfEdition:
    """A run of the user's with another `run_uid`; its records have that, too."""

    def __init__(self, run: Any, edition: str) -> None:
        self._run = run
        self.run_uid = run_uid_of(run.run_uid, edition)

    def extract(self) -> Sequence[Any]:
        """Return the records of the run, as those of this edition."""
        original = self._run.run_uid
        return [
            # Of any other run's the store says what is wrong with it.
            record.model_copy(update={"run_uid": self.run_uid})
            if getattr(record, "run_uid", None) == original
            else record
            for record in self._run.extract()
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


_WANTED = (
    "return a run: an object with `run_uid`, `capability_id` and `extract()`, such as "
    "batchrunner.analytics.CompletedRun(run_uid, capability_id, records)"
)


def checked_run(run: Any) -> Any:
    """Return *run*, which `run()` returned.

    Raises:
        InvalidRecordError: It is no run; the message says what is wanted.
    """
    if inspect.iscoroutine(run):
        run.close()  # or Python warns that nobody awaited it
        raise InvalidRecordError(
            f"run() returned a coroutine: write `def run`, call asyncio.run() in it, and {_WANTED}"
        )
    if not isinstance(run, type) and _is_run(run):
        return run
    shown = "None" if run is None else f"a {type(run).__name__}"
    raise InvalidRecordError(f"run() returned {shown}; {_WANTED}")


def _is_run(run: Any) -> bool:
    named = hasattr(run, "run_uid") and hasattr(run, "capability_id")
    return named and callable(getattr(run, "extract", None))
