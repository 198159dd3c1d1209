"""The way out where a source file is damaged, for the messages of all formats."""

MEND = (
    "replace it with a whole file; or move it away, then `batchrunner retry --accept-changes` goes on "
    "without it"
)
MEND_OR_MOVE = "or, if only this file lacks it, mend the file or move it away first"
