"""What the user has to do, in words: judged from what was measured and from each one's documentation.

Also vLLM's `run-batch`, which needs a GPU: read, not measured.
"""

from __future__ import annotations

from collections.abc import Mapping

_DELETE_FIRST = "delete the output before each run, or take `mode='overwrite'`"
_DELETE_FIRST_DAFT = "delete the output before each run, or take `write_mode='overwrite'`"
_FIX_AND_AGAIN = "fix the code or the row, then the same line"
_NEW_FOLDERS = "notice it yourself; then a new checkpoint and a new output"

_CHECKPOINT_CONFIG = {
    "nothing": "a column of unique ids, kept by each step",
    "bad row": _FIX_AND_AGAIN,
    "bad row, tolerant": "count rows, or read the log: the run succeeded",
    "code": _NEW_FOLDERS,
}

BY_HAND: Mapping[str, Mapping[str, str]] = {
    "batchrunner": {
        "bad row": "nothing: the row is a dead letter, with its error and the line of code",
        "bad row, fixed": "the line that the run printed: `batchrunner retry --rows`",
        "code": "decide: `--accept-changes` or `--fresh`",
        "killed, code": "decide: `--accept-changes` or `--fresh`",
    },
    "Ray Data": {
        "bad row": f"{_FIX_AND_AGAIN}; {_DELETE_FIRST}",
        "bad row, fixed": _DELETE_FIRST,
        "killed": _DELETE_FIRST,
        "again": _DELETE_FIRST,
    },
    "Ray Data, overwrite": {
        "bad row": _FIX_AND_AGAIN,
        "bad row, tolerant": "count rows, or read the log: the run succeeded",
    },
    "Ray Data, CheckpointConfig": {
        **_CHECKPOINT_CONFIG,
        "killed, code": _NEW_FOLDERS,
    },
    "Ray Data, CheckpointConfig, Parquet": {
        **_CHECKPOINT_CONFIG,
        "killed, code": "nothing here, since no row was written yet; in a larger job, as above",
    },
    "datatrove": {
        "bad row": _FIX_AND_AGAIN,
        "new file": "a new `logging_dir` for the new files: which file is whose follows from their number and order",
        "code": "notice it yourself; then a new `logging_dir` and a new output",
        "killed, code": "notice it yourself; then a new `logging_dir` and a new output",
    },
    "Daft": {
        "bad row": f"{_FIX_AND_AGAIN}; {_DELETE_FIRST_DAFT}",
        "bad row, fixed": _DELETE_FIRST_DAFT,
        "killed": _DELETE_FIRST_DAFT,
        "again": _DELETE_FIRST_DAFT,
    },
    "Daft, overwrite": {
        "bad row": _FIX_AND_AGAIN,
        "bad row, tolerant": "look for rows with null",
    },
    "Daft, checkpoint": {
        "nothing": "a column of unique ids; a Delta table (or Iceberg) as output; a key for each commit",
        "bad row": _FIX_AND_AGAIN,
        "bad row, tolerant": "look for rows with null",
        "new file": "another key of the commit: with the old one the run adds nothing, and succeeds",
        "code": _NEW_FOLDERS,
        "killed, code": _NEW_FOLDERS,
    },
}
"""By contestant and scenario; nothing where there is nothing to do but the line."""

RUN_BATCH = "vLLM `run-batch` (read, not measured)"

READ: Mapping[str, str] = {
    "bad row": "goes on: a line with the error; a malformed line stops all before the first",
    "bad row, fixed": "all computed again",
    "killed": "no output: it is written at the end; all computed again",
    "again": "all computed again, the file is replaced",
    "new file": "one file a run",
    "code": "all computed again, the file is replaced",
    "killed, code": "all computed again, with the new model",
}
"""Of vLLM's `run-batch`, from its documentation, its source, and its pull request 52505 of August 2026."""
