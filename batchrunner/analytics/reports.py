"""The report in Markdown that a run may make of itself, kept beside its records."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any

from batchrunner.analytics.layout import stem_of
from batchrunner.errors import describe
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import contained

REPORTS = "_reports"
THRESHOLD = 0.5
"""What a report is asked for that takes a threshold: what is as good as that is good."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunReport:
    """A report: its text, or where the run has put it.

    Attributes:
        text: Markdown; None when the run has put it somewhere itself.
        uri: Where that is; None when it is to be kept beside the records.
    """

    text: str | None = None
    uri: str | None = None


def report_key(run_uid: str) -> str:
    """Return the key of the report of a run."""
    return f"{REPORTS}/{stem_of([run_uid])}.md"


def report_uri(store: str, run_uid: str) -> str:
    """Return where the store at URI *store* keeps the report of a run."""
    return f"{store.rstrip('/')}/{report_key(run_uid)}"


def report_of(run: Any) -> RunReport | None:
    """Return what `run.collect_md_report()` makes; None when the run has no such method.

    A run is recorded without its report rather than not at all: a warning says why it has none.
    """
    try:
        collect = getattr(run, "collect_md_report", None)
        return _report(contained(lambda: _collected(collect))) if callable(collect) else None
    except NotImplementedError:  # the package checkmaite's way to say that there is none
        return None
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        _log.warning("run %s is recorded without its report: %s", run.run_uid, describe(error))
        return None


def _collected(collect: Any) -> Any:
    takes_it = "threshold" in inspect.signature(collect).parameters
    return collect(threshold=THRESHOLD) if takes_it else collect()


def _report(made: Any) -> RunReport | None:
    text = made if isinstance(made, str) else getattr(made, "content", None)
    if isinstance(text, str):
        return RunReport(text=scrubbed(text)) if text.strip() else None
    uri = getattr(made, "uri", None)
    if isinstance(uri, str):
        return RunReport(uri=uri)
    raise TypeError(f"collect_md_report() returned {type(made).__name__}, no text")
