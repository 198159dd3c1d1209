"""The one registry of URI schemes, and the one parser of URIs."""

# pathlib's `resolve` follows links, its `absolute` keeps "..", and this runs once per object.
# ruff: noqa: PTH100

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

from batchrunner.errors import CannotStartError
from batchrunner.storage.contract import Options, Storage

OpenRoot = Callable[[str, Options], Storage]
"""Opens the root named by what follows `scheme://`, without slashes at its ends."""

SCHEMES: dict[str, str | OpenRoot] = {
    "s3": "batchrunner.storage.s3.storage:open_bucket",
}
"""The opener of each scheme: a function, or "package.module:function". A path needs none."""

_GROUP = "batchrunner.storages"
_ALIASES = {"s3a": "s3"}
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_SCHEME = re.compile(rf"({_WORD.pattern}):(//)?")
_FILE = re.compile(r"file:(?://(?:localhost)?)?(?=/(?!/))", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|arn:[A-Za-z0-9:-]+")


def register(scheme: str, opener: str) -> None:
    """Register *opener* for URIs that begin with `scheme://`, in this process. Idempotent.

    A worker is another process. It finds the scheme by the entry point of that name in the group
    `batchrunner.storages`, which is read when a URI has a scheme that is not registered.

    Args:
        scheme: Letters, digits, "+", "." and "-", a letter first.
        opener: "package.module:function", imported when the first storage is opened. It is called with
            what follows `scheme://` (a container, and perhaps a folder below it) and with the
            `storage_options`, and returns a `Storage` without reading or writing anything.

    Raises:
        ValueError: *scheme* is malformed, or has another opener.
    """
    name = scheme.lower()
    if not _WORD.fullmatch(scheme):
        raise ValueError(f"{scheme!r} is not a scheme: use letters, digits, '+', '.' and '-'")
    if name in {"file", *_ALIASES} or SCHEMES.get(name, opener) != opener:
        raise ValueError(f"{name}:// has another opener already: choose another scheme")
    SCHEMES[name] = opener


def opener_of(scheme: str) -> OpenRoot:
    """Return the function that opens *scheme*, which must be registered.

    Raises:
        CannotStartError: The function cannot be imported, or is not callable.
    """
    opener = SCHEMES[scheme]
    if not isinstance(opener, str):
        return opener
    module, _, name = opener.partition(":")
    try:
        open_root: OpenRoot = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CannotStartError(
            f"{scheme}:// is registered to be opened by {opener}, which cannot be imported "
            f"({type(error).__name__}: {error}): install it here and where the workers run"
        ) from error
    if not callable(open_root):
        raise CannotStartError(
            f"{scheme}:// is registered to be opened by {opener}, which is no function but a "
            f"{type(open_root).__name__}: register one that takes the root and the storage options"
        )
    return open_root


def absolute_uri(uri: str) -> str:
    """Return *uri* as an absolute path or as `scheme://container/key`, without a trailing slash.

    A relative path starts at the current directory, `~` is the home directory, `file://` is removed.

    Raises:
        ValueError: *uri* is malformed, its scheme is not registered, or it holds credentials. The
            message never quotes *uri*, which may hold a secret.
    """
    if not uri or uri != uri.strip() or _CONTROL.search(uri):
        raise ValueError("must be a path or a URI, without spaces around it or control characters")
    scheme, rest = parse(uri)
    if "\0" in rest:  # written as "%00"
        raise ValueError("must be a path or a URI, without a zero byte")
    return f"{scheme}://{normal_root(scheme, rest)}" if scheme else rest


def parse(uri: str) -> tuple[str, str]:
    """Split *uri* into its scheme and what follows that; a path has the scheme "", and is absolute.

    What follows `scheme://` is returned as it was written, since any change makes it another key.

    Raises:
        ValueError: As `absolute_uri`.
    """
    if not uri:
        raise ValueError("must be a path or a URI, and is empty")
    if _is_plain_path(uri):  # of a file: this runs for each of a million
        return "", uri
    match = _SCHEME.match(uri)
    scheme = _ALIASES.get(match[1].lower(), match[1].lower()) if match else ""
    if match and scheme in SCHEMES and not match[2]:
        raise ValueError(f'needs two slashes: "{scheme}://bucket/folder"')
    if scheme == "file" or "://" not in uri:
        return "", _absolute_path(uri)
    if not (match and match[2] and _is_registered(scheme)):
        raise ValueError(
            f"is of a store that is not supported{f' ({scheme}://)' if scheme else ''}: use a local "
            "path, file:// or s3://, or install a package with the entry point "
            f"`{scheme or 'scheme'}` in the group `{_GROUP}`; `batchrunner.storage.register` adds one "
            "in its own process only"
        )
    rest = uri[match.end() :]
    _check_container(scheme, rest.partition("/")[0])
    return scheme, rest


def normal_root(scheme: str, rest: str) -> str:
    """Return *rest*, a container and the folders in it, with single slashes between them.

    Raises:
        ValueError: *rest* goes through "." or "..".
    """
    container, _, key = rest.partition("/")
    segments = [segment for segment in key.split("/") if segment]
    if {".", ".."} & set(segments):
        raise ValueError(
            f'must not go through "." or "..": {scheme}:// takes each as a name; write the key without'
        )
    return "/".join([container, *segments])


def _is_registered(scheme: str) -> bool:
    if scheme in SCHEMES:
        return True
    # Only for unregistered schemes: this reads the metadata of every installed package, and `validate`
    # should be quick.
    from importlib.metadata import entry_points

    SCHEMES.update({one.name: one.value for one in entry_points(group=_GROUP, name=scheme)})
    return scheme in SCHEMES


def _is_plain_path(uri: str) -> bool:
    """Return whether *uri* is an absolute path as `_absolute_path` would write it; False if in doubt."""
    unsure = "//" in uri or "/." in uri or "\0" in uri
    return uri[0] == "/" and uri[-1] != "/" and not unsure


def _absolute_path(uri: str) -> str:
    prefix = _FILE.match(uri)
    path = unquote(uri[prefix.end() :]) if prefix else uri
    if not prefix and uri.lower().startswith("file:"):
        raise ValueError('needs an absolute path after file://, such as "file:///data/in"')
    try:
        absolute = os.path.abspath(Path(path).expanduser() if path.startswith("~") else path)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot be made an absolute path ({type(error).__name__}): write one that begins with /"
        ) from error
    return "/" + absolute.lstrip("/")  # POSIX keeps a leading "//", and no other program does


def _check_container(scheme: str, name: str) -> None:
    if "@" in name or (":" in name and not name.startswith("arn:")):
        raise ValueError(
            "must not hold credentials: give them by storage_options or the environment"
        )
    if not _BUCKET.fullmatch(name):
        raise ValueError(f'needs the name of a bucket: "{scheme}://bucket/folder"')
