"""What a capability's `run` is to return: something that the store can record."""

from __future__ import annotations

import inspect
from typing import Any

from batchrunner.errors import InvalidRecordError

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
