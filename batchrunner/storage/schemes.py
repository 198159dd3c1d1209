"""From a URI to the storage behind it."""

# pathlib's `resolve` follows links, its `absolute` keeps "..".
# ruff: noqa: PTH100, PTH111

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from urllib.parse import unquote

from batchrunner.errors import InvalidSpecError
from batchrunner.storage.contract import Options, Storage, options_key
from batchrunner.storage.disk.storage import LocalStorage

OpenRoot = Callable[[str, Options], Storage]
"""Opens the root named by what follows `scheme://`, without slashes at its ends."""


def _open_s3(root: str, options: Options) -> Storage:
    from batchrunner.storage.s3.storage import S3Storage

    bucket, _, prefix = root.partition("/")
    if not bucket:
        raise InvalidSpecError("s3:// needs a bucket, as in s3://bucket/prefix")
    return S3Storage(bucket, prefix, storage_options=options)


SCHEMES: dict[str, OpenRoot] = {"s3": _open_s3, "s3a": _open_s3}
"""What opens which scheme, besides paths. `batchrunner.testing.memory` adds its own."""

_located: dict[Hashable, Storage] = {}


def open_storage(uri: str, *, storage_options: Options | None = None) -> Storage:
    """Open the storage whose root is *uri*: `s3://bucket/prefix`, `file:///path` or a path.

    Nothing is read or written yet; s3fs is loaded with the first request.

    Args:
        uri: The root. A path may be relative or start with "~".
        storage_options: s3fs's, for s3://. A path needs none.

    Raises:
        InvalidSpecError: The scheme is not known, or there is no root in *uri*.
    """
    scheme, rest = _split(uri)
    if not scheme:
        return LocalStorage(rest)
    container, _, prefix = rest.partition("/")
    segments = [segment for segment in prefix.split("/") if segment]
    if {".", ".."} & set(segments):
        raise InvalidSpecError(f"{uri}: write it without '.' and '..'")
    return SCHEMES[scheme]("/".join([container, *segments]), storage_options or {})


def locate(uri: str, *, storage_options: Options | None = None) -> tuple[Storage, str]:
    """Return a storage and the key in it for the object at *uri*, which is absolute.

    The storage is that of the whole bucket, or of "/" for a path, and is kept: looking up
    thousands of objects costs no more than taking their URIs apart.

    Raises:
        InvalidSpecError: The scheme is not known, or there is no object in *uri*.
    """
    scheme, rest = _split(uri)
    root, key = rest.partition("/")[::2] if scheme else ("/", rest[1:])
    if not key:
        raise InvalidSpecError(f"{uri}: this is not the URI of an object")
    place = (scheme, root, options_key(storage_options) if storage_options else None)
    if place not in _located:
        base = f"{scheme}://{root}" if scheme else root
        _located[place] = open_storage(base, storage_options=storage_options)
    return _located[place], key


def is_path(uri: str) -> bool:
    """Tell whether *uri* is on a disk, where no ETag tells one content from another."""
    return not _split(uri)[0]


def _split(uri: str) -> tuple[str, str]:
    """Split *uri* into scheme and the rest; a path, however it is written, has scheme ""."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri)
    if match is None:
        if not uri:
            raise InvalidSpecError(
                "an empty URI names no place; write a path or s3://bucket/prefix"
            )
        return "", os.path.abspath(os.path.expanduser(uri) if uri.startswith("~") else uri)
    scheme, rest = match[1].lower(), uri[match.end() :]
    if scheme == "file":
        return "", _path_of_file_uri(uri, rest)
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in ("file", *SCHEMES))
        raise InvalidSpecError(f"{scheme}:// is not supported; use a path or one of {known}")
    if "@" in rest.partition("/")[0]:
        raise InvalidSpecError(
            f"{scheme}://: credentials do not belong into a URI; put them into storage_options or "
            "the environment"
        )
    return scheme, rest


def _path_of_file_uri(uri: str, rest: str) -> str:
    path = unquote(rest.removeprefix("localhost"))
    if not path.startswith("/"):
        raise InvalidSpecError(f"{uri}: write file:///absolute/path, or just the path")
    return os.path.abspath(path)
