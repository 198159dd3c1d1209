"""Stderr with a descriptor of its own: while Ray starts, descriptor 2 is captured."""

from __future__ import annotations

import os
import sys
from typing import TextIO

_streams: dict[tuple[int, int], TextIO] = {}


def own_stderr() -> TextIO:
    """Return a stream to where stderr goes now; `sys.stderr` itself if that is no file.

    It lasts as long as the process: all calls for one terminal return the same stream.
    """
    try:
        descriptor = sys.stderr.fileno()
        place = os.fstat(descriptor)
    except (OSError, ValueError, AttributeError):  # not a file, or there is none
        return sys.stderr
    key = (place.st_dev, place.st_ino)
    if key not in _streams:
        encoding = sys.stderr.encoding
        _streams[key] = os.fdopen(
            os.dup(descriptor),
            "w",
            buffering=1,
            encoding=encoding,
            errors="backslashreplace",
            closefd=False,  # nothing closes it before the exit, where Python would warn of that
        )
    return _streams[key]
