"""Reports: the Markdown that a run may write about itself, stored beside its records."""

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
"""The score from which a result passes, for `collect_md_report(threshold)`; as in checkmaite."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CapabilityReport:
    """A report: its text, or the URI where the run itself stored it; without both, no report.

    Attributes:
        text: Markdown, to be stored beside the records; None if there is a `uri`.
        uri: Where the run stored the report; None if there is a `text`.
    """

    text: str | None = None
    uri: str | None = None


def report_key(run_uid: str) -> str:
    """Return the key under which the report of run *run_uid* is stored."""
    return f"{REPORTS}/{stem_of([run_uid])}.md"


def report_uri(store: str, run_uid: str) -> str:
    """Return the URI of the report of run *run_uid* in the store at URI *store*."""
    return f"{store.rstrip('/')}/{report_key(run_uid)}"


def report_of(run: Any) -> CapabilityReport | None:
    """Return the report that `run.collect_md_report()` makes; None if there is none.

    If the method fails, log a warning and return None: better a run without its report than no run.
    """
    try:
        collect = getattr(run, "collect_md_report", None)
        return _report(contained(lambda: _collected(collect))) if callable(collect) else None
    except NotImplementedError:  # checkmaite raises it for a capability without a report
        return None
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        _log.warning(
            "run %s is recorded without its report: collect_md_report() raised %s; correct it for the "
            "next runs",
            run.run_uid,
            describe(error),
        )
        return None


def _collected(collect: Any) -> Any:
    takes_it = "threshold" in inspect.signature(collect).parameters
    return collect(threshold=THRESHOLD) if takes_it else collect()


def _report(made: Any) -> CapabilityReport | None:
    text = made if isinstance(made, str) else getattr(made, "content", None)
    if isinstance(text, str):
        return CapabilityReport(text=scrubbed(text)) if text.strip() else None
    uri = getattr(made, "uri", None)
    if isinstance(uri, str):
        return CapabilityReport(uri=uri)
    raise TypeError(f"it must return text, not {type(made).__name__}")
