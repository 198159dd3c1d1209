"""Capabilities over samples of tars."""

from pathlib import Path


def fails_on_three(rows, path):
    """Raise for two of them as long as there is no file at *path*."""
    if not Path(path).exists() and any(int(row["n"]) in (3, 13) for row in rows):
        raise ValueError("three")
    return rows


def counted(row):
    """Make a number of a member, if it is one."""
    return {**row, "n": int(row["n"])} if row["__key__"] != "x" else row
