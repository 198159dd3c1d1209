"""The address of a recorded run: small, and without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

_MARK = "#run_uid="


@dataclass(frozen=True, slots=True)
class CapabilityRunRef:
    """Where to find the records of a run, in a few hundred bytes, whatever the run produced.

    Attributes:
        run_uid: The run.
        capability_id: What was run.
        store_uri: The run in its analytics store. Absolute; stays valid when the store is
            compacted; holds no credentials: give `open_store` those.
        outputs_uri: Where the run's files are, if it made any; else its report, if it made one.
    """

    run_uid: str
    capability_id: str
    store_uri: str
    outputs_uri: str | None = None


def run_uri(store: str, run_uid: str) -> str:
    """Return the URI of a run in the store at URI *store*."""
    return f"{store}{_MARK}{quote(run_uid, safe='')}"


def split_run_uri(uri: str) -> tuple[str, str | None]:
    """Return the store's part of *uri*, and the `run_uid` if there is one."""
    store, mark, run_uid = uri.partition(_MARK)
    return store, unquote(run_uid) if mark else None
