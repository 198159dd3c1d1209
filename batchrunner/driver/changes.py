"""A spec or code that is not that of the run so far: what is said of it, and when it does not matter."""

from __future__ import annotations

from collections.abc import Sequence

from batchrunner.checkpoint import Checkpoint, Sentinels
from batchrunner.driver.sink_state import MANIFEST, SUCCESS, parts_in
from batchrunner.storage import Storage

_MOST_DIFFERENCES = 40
_FEW = 3


def is_empty(checkpoint: Checkpoint, sink: Storage) -> bool:
    """Tell whether a run has left nothing that another spec could be mixed with.

    It is then begun anew rather than gone on with: its plan was made as the spec was, and a worker of
    a driver that was killed may still commit what that asked for, in records of its own.
    """
    if any(True for _ in checkpoint.records.list("sentinels")):
        return False
    entries = list(sink.list())
    return not parts_in(entries) and not any(e.key in (SUCCESS, MANIFEST) for e in entries)


def begun_anew(differences: Sequence[str]) -> str:
    """Say that a run begins anew, and why."""
    names = [line.partition(":")[0] for line in differences]
    some = ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
    return f"nothing was committed before the spec or the code changed ({some}): begun anew"


def is_of_code(differences: Sequence[str]) -> bool:
    """Tell whether only the code changed, as it does when somebody mends it."""
    return all(line.startswith("capability.code") for line in differences)


def refusal(
    differences: Sequence[str], *, checkpoint: Checkpoint, sentinels: Sentinels, is_renamed: bool
) -> str:
    """Return the message that refuses to go on, with the differences and the ways out."""
    more = len(differences) - _MOST_DIFFERENCES
    told = [*differences[:_MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
    lines = "".join(f"\n  {line}" for line in told)
    return (
        f"the spec or the code is not that of the run in {checkpoint.storage.uri}:{lines}\n"
        "Nothing was changed. Put it back; or run with --accept-changes to go on with the new one "
        "for what is not committed yet; or start over with --fresh."
        f"{_mended(differences, checkpoint, sentinels)}{_other_job(differences, is_renamed)}"
    )


def _mended(differences: Sequence[str], checkpoint: Checkpoint, sentinels: Sentinels) -> str:
    """Name `retry` where something waits for code that was mended: it takes the new code for that."""
    rows = sum(sentinel.rows_failed for sentinel in sentinels.good.values())
    apart = len(checkpoint.quarantined())
    if not is_of_code(differences) or not (rows or apart):
        return ""
    what = [f"{rows:,} rows"] if rows else []
    what += [f"{apart:,} shards"] if apart else []
    way = "retry --rows" if rows else "retry"
    return (
        f"\n{' and '.join(what)} were set aside: if this change mends that, `batchrunner {way} SPEC` "
        "tries them again with it."
    )


def _other_job(differences: Sequence[str], is_renamed: bool) -> str:
    is_other = is_renamed or any(line.startswith("capability.target:") for line in differences)
    return "\nIf this is another job, give it another sink." if is_other else ""
