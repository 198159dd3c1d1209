"""Which paths a row may give its file in a sink of files: the same on every store."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_PATH_BYTES, MAX_NAME_BYTES = 1024, 255
"""What S3 allows for a key, and what file systems allow for one name in it."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_PART = re.compile("part-", re.IGNORECASE)
"""What readers take for parts: `part-*` below the sink, and a folder of such a name with all that it has."""


def checked_path(path: object) -> str:
    """Return *path* unchanged if a file below the sink may have it.

    Raises:
        ValueError: It may not; the message has the fact and the way out.
    """
    if not isinstance(path, str):
        raise ValueError(  # noqa: TRY004 - a row that the format cannot hold
            f"a row of a sink of files needs a 'path', the name of its file below the sink; this one has {path!r:.80}"
        )
    if why := _fault(path):
        raise ValueError(f"the path {path!r:.120} {why}; give one such as 'cats/01.jpg'")
    return path


def _fault(path: str) -> str:
    if not path:
        return "is empty"
    if _CONTROL.search(path):
        return "has a control character"
    if len(path.encode()) > MAX_PATH_BYTES:  # a UnicodeEncodeError is a ValueError
        return f"has more than {MAX_PATH_BYTES:,} bytes"
    if path.startswith("/") or "://" in path:
        return "is absolute, and files are written below the sink only"
    return next(filter(None, map(_fault_of_name, path.split("/"))), "") or (
        "begins with 'part-', as a part's name does" if _PART.match(path) else ""
    )


def _fault_of_name(name: str) -> str:
    if not name:
        return "has an empty name between two '/' or at its end"
    if name in (".", ".."):
        return f"has a {name!r}, which may lead out of the sink"
    if name[0] in "._":
        return f"has a name that begins with {name[0]!r}, which readers take for hidden"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes"
    return ""


def folded(path: str) -> str:
    """Return *path* as disks compare it that ignore case, or how accents are composed."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders that *path* lies in, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
