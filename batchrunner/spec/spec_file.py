"""Reads the file of a spec."""

from __future__ import annotations

import os
from pathlib import Path

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.diagnosis import visible
from batchrunner.spec.tree import MAX_CHARACTERS


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of the file at *path*, which may have at most 1 MiB.

    Raises:
        InvalidSpecError: It cannot be read, is larger, or is not UTF-8.
    """
    name = visible(os.fsdecode(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is no file's name"
        raise InvalidSpecError(f"{name}: the spec cannot be read: {reason}") from error
    if len(data) > MAX_CHARACTERS:
        raise InvalidSpecError(f"{name}: larger than 1 MiB: a spec names data, it holds none")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name}: not UTF-8 from byte {error.start} on: save it as UTF-8"
        raise InvalidSpecError(message) from error
