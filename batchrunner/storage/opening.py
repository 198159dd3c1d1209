"""Opens the storage behind a URI: one object for each root and set of options in a process."""

from __future__ import annotations

import os
from collections.abc import Hashable

from batchrunner.errors import BatchRunnerError, CannotStartError, InvalidSpecError, describe
from batchrunner.storage.contract import Options, Storage, copied_options, options_key
from batchrunner.storage.schemes import SCHEMES, normal_root, opener_of, parse

_MOST = 256
"""How many storages to keep open. One that is opened again only syncs its folders once more."""

_opened: dict[Hashable, Storage] = {}


def open_storage(uri: str, *, storage_options: Options | None = None) -> Storage:
    """Return the storage whose root is *uri*: `s3://bucket/prefix`, `file:///path` or a path.

    One object for each root and set of options in a process, whichever way the URI is written.
    Nothing is read or written yet; s3fs is loaded with the first request.

    Args:
        uri: The root. A path may be relative or start with "~".
        storage_options: Options of s3fs, for s3://. A path needs none.

    Raises:
        InvalidSpecError: The scheme is not registered, there is no root in *uri*, or its opener looks
            up a storage option that was not given.
        CannotStartError: The opener of the scheme cannot be imported, or raises.
    """
    scheme, rest = _parsed(uri)
    try:
        root = normal_root(scheme, rest) if scheme else rest
    except ValueError as error:
        raise InvalidSpecError(f"the URI of a storage {error}") from error
    return _opened_once(scheme, root, (storage_options or {}) if scheme else {})


def locate(uri: str, *, storage_options: Options | None = None) -> tuple[Storage, str]:
    """Return a storage and the key in it for the object at *uri*, which is absolute.

    The storage is that of the whole bucket, or of "/" for a path.

    Raises:
        InvalidSpecError: As `open_storage`, or *uri* names no object.
        CannotStartError: As `open_storage`.
    """
    scheme, rest = _parsed(uri)
    root, key = rest.partition("/")[::2] if scheme else ("/", rest[1:])
    if not key:
        raise InvalidSpecError(
            f"{uri} names no object: add its key, as in {uri.rstrip('/')}/folder/name"
        )
    return _opened_once(scheme, root, (storage_options or {}) if scheme else {}), key


def is_path(uri: str) -> bool:
    """Return whether *uri* is on a disk, where no ETag distinguishes one content from another."""
    return not _parsed(uri)[0]


def _opened_once(scheme: str, root: str, options: Options) -> Storage:
    # The opener is part of the key, since tests replace it. So is the process: after a fork, a storage's
    # staged files still belong to the parent.
    opener = SCHEMES.get(scheme)
    key = (os.getpid(), opener, scheme, root, options_key(options))
    storage = _opened.get(key)
    if storage is None:
        if len(_opened) >= _MOST:
            _opened.clear()
        # If two threads come here at the same time, both get the storage that the first one opened.
        storage = _opened.setdefault(key, _open(scheme, root, copied_options(options)))
    return storage


def _open(scheme: str, root: str, options: Options) -> Storage:
    if scheme:
        return _open_by_plugin(scheme, root, options)
    from batchrunner.storage.disk.storage import LocalStorage

    return LocalStorage(root)


def _open_by_plugin(scheme: str, root: str, options: Options) -> Storage:
    opener = opener_of(scheme)
    try:
        return opener(root, options)
    except BatchRunnerError:
        raise
    except Exception as error:  # the opener is the user's code, which may raise anything
        missing = error.args[0] if isinstance(error, KeyError) and error.args else None
        if isinstance(missing, str) and missing not in options:
            raise InvalidSpecError(
                f"{scheme}://{root} needs the storage option {missing!r}: give it by storage_options, or "
                "on the command line by --storage-options"
            ) from error
        raise CannotStartError(
            f"{scheme}://{root} cannot be opened: {SCHEMES[scheme]} raised {describe(error)}. It is "
            "called with the root and the storage options: correct these or the function"
        ) from error


def _parsed(uri: str) -> tuple[str, str]:
    try:
        return parse(uri)
    except ValueError as error:
        raise InvalidSpecError(f"the URI of a storage {error}") from error
