"""Map a capability over millions of rows: every row exactly once, whatever is killed on the way."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrunner.driver.report import BatchReport as BatchReport
    from batchrunner.errors import BatchRunnerError as BatchRunnerError
    from batchrunner.runner import BatchRunner as BatchRunner
    from batchrunner.spec import BatchSpec as BatchSpec

__version__ = "0.1.0"

_HOMES = {
    "BatchReport": "batchrunner.driver.report",
    "BatchRunner": "batchrunner.runner",
    "BatchRunnerError": "batchrunner.errors",
    "BatchSpec": "batchrunner.spec",
}

__all__ = ["BatchReport", "BatchRunner", "BatchRunnerError", "BatchSpec", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import batchrunner` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names too, imported or not, for the completion of a notebook."""
    return sorted({*globals(), *__all__})
