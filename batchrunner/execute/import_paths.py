"""Where a driver imports from, made known to its workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable


def import_paths() -> tuple[str, ...]:
    """Return where this process imports from besides what is installed."""
    installed = (sys.prefix, sys.base_prefix)
    paths = (os.path.abspath(path) for path in sys.path)  # noqa: PTH100 - strings they stay
    return tuple(path for path in paths if not path.startswith(installed))


def import_from(paths: Iterable[str]) -> None:
    """Let this process import from *paths* too, where it has them."""
    known = set(sys.path)
    sys.path[:0] = [p for p in paths if p not in known and os.path.isdir(p)]  # noqa: PTH112 - a string stays one
