"""A spec or code that differs from that of the run: when it is harmless, and how it is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from batchrunner.checkpoint import Checkpoint
from batchrunner.driver.sink_state import declaration_in, parts_in
from batchrunner.errors import SpecChangedError
from batchrunner.storage import Storage

_MOST_DIFFERENCES = 40
_OTHER_TARGET = re.compile(r"capability\.(stages\.\d+\.)?(target|processor):")
_FEW = 3


def is_empty(checkpoint: Checkpoint, sink: Storage) -> bool:
    """Return whether the run has no output yet, with which that of another spec could be mixed.

    If so, a changed spec begins the run anew, with new records: the old plan follows the old spec,
    and a worker of a killed driver may still commit by it, which is harmless in the old records.
    """
    if any(True for _ in checkpoint.records.list("sentinels")):
        return False
    entries = list(sink.list())
    return not parts_in(entries) and not declaration_in(entries)


def begun_anew(differences: Sequence[str]) -> str:
    """Return the warning that the run begins anew because of *differences*."""
    names = [line.partition(":")[0] for line in differences]
    some = ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
    return f"nothing was committed before the spec or the code changed ({some}): begun anew"


def is_of_code(differences: Sequence[str]) -> bool:
    """Return whether only the code changed, as after a fix."""
    return all(line.startswith("capability.code") for line in differences)


def refuse_changes(
    differences: Sequence[str], checkpoint: Checkpoint, *, is_renamed: bool
) -> NoReturn:
    """Refuse to continue the run with a changed spec or code; name the changes and the ways out.

    Raises:
        SpecChangedError: Always.
    """
    more = len(differences) - _MOST_DIFFERENCES
    shown = [*differences[:_MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
    lines = "".join(f"\n  {line}" for line in shown)
    is_other = is_renamed or any(map(_OTHER_TARGET.match, differences))
    hint = (
        "\nIf this is another job, give it another sink."
        if is_other
        else _hint_at_retry(differences, checkpoint)
    )
    raise SpecChangedError(
        f"the spec or the code is not that of the run in {checkpoint.storage.uri}:{lines}\n"
        "Nothing was changed. Put it back; or run with --accept-changes to go on with the new one "
        "for what is not committed yet; or start over with --fresh."
        f"{hint}"
    )


def _hint_at_retry(differences: Sequence[str], checkpoint: Checkpoint) -> str:
    """Return a hint at `retry` if rows or shards have failed; only changed code it accepts by itself."""
    rows = sum(sentinel.rows_failed for sentinel in checkpoint.sentinels().good.values())
    shards = len(checkpoint.quarantined())
    if not (rows or shards):
        return ""
    what = [f"{rows:,} rows"] if rows else []
    what += [f"{shards:,} shards"] if shards else []
    way = "retry --rows" if rows else "retry"
    way += "" if is_of_code(differences) else " --accept-changes"
    return (
        f"\n{' and '.join(what)} failed: if this change fixes that, `batchrunner {way} SPEC` "
        "runs them again with it."
    )
