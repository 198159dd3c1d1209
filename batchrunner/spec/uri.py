"""Where rows are and where they go: every place as one absolute URI, without credentials."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_FILE = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLASHES_LOST = re.compile(r"(?:s3a?|memory):(?!//)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|arn:[A-Za-z0-9:-]+")
_BUCKET_SCHEMES = {"s3": "s3", "s3a": "s3", "memory": "memory"}  # `memory` is for tests


def absolute_uri(uri: str) -> str:
    """Return *uri* as an absolute path or as `s3://bucket/key`, without a trailing slash.

    A relative path starts at the current directory, `~` is the home directory, `file://` goes.

    Raises:
        ValueError: It is of no store we know, or holds credentials. Never quotes *uri*, which
            may hold a secret.
    """
    if not uri or uri != uri.strip() or _CONTROL.search(uri):
        raise ValueError("must be a path or a URI, without spaces around it or control characters")
    if _SLASHES_LOST.match(uri):
        raise ValueError('needs two slashes: "s3://bucket/folder"')
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else "file"
    if scheme == "file" and (match or "://" not in uri):
        return _absolute_path(uri)
    if scheme not in _BUCKET_SCHEMES:
        raise ValueError("is of a store that is not supported: use a local path, file:// or s3://")
    return f"{_BUCKET_SCHEMES[scheme]}://{_bucket_and_key(uri.partition('://')[2])}"


def without_glob(uri: str) -> str:
    """Return *uri*.

    Raises:
        ValueError: It is a pattern: one may read from many places, but writes to one.
    """
    if re.search(r"[*?\[]", uri):
        raise ValueError('must be one place: "*", "?" and "[" work in the source only')
    return uri


def _absolute_path(uri: str) -> str:
    prefix = _FILE.match(uri)
    path = unquote(uri[prefix.end() :]) if prefix else uri
    if not prefix and uri.lower().startswith("file:"):
        raise ValueError('needs an absolute path after file://, such as "file:///data/in"')
    try:
        absolute = os.path.normpath(Path.cwd() / Path(path).expanduser())
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot be made an absolute path ({type(error).__name__})") from error
    return "/" + absolute.lstrip("/")  # POSIX keeps a leading "//", nobody else does


def _bucket_and_key(rest: str) -> str:
    bucket, _, key = rest.partition("/")
    if "@" in bucket or (":" in bucket and not bucket.startswith("arn:")):
        raise ValueError(
            "must not hold credentials: give them by storage_options or the environment"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ValueError('needs the name of a bucket: "s3://bucket/folder"')
    segments = [segment for segment in key.split("/") if segment]
    if {".", ".."} & set(segments):
        raise ValueError('must not go through "." or "..": a bucket has no folders to climb')
    return "/".join([bucket, *segments])
