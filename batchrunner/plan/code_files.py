"""The files of `capability.files`: what they hold, so that other weights are other code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from batchrunner.errors import InvalidSpecError
from batchrunner.plan.source import Place
from batchrunner.spec import BatchSpec, redact_uri
from batchrunner.storage import Entry, locate, open_storage


def code_files(spec: BatchSpec) -> dict[str, str]:
    """Return what the files of the capability hold, by their absolute name.

    Of a local file: a hash of its content, which is read. Elsewhere: size and ETag.

    Raises:
        InvalidSpecError: One of `capability.files` names no file, or one that cannot be read.
        StorageError: A store cannot be reached.
    """
    found: dict[str, str] = {}
    for uri in (spec.capability.files if spec.capability else None) or ():
        files = dict(_elsewhere(uri, spec) if "://" in uri else _on_disk(uri))
        if not files:
            raise InvalidSpecError(
                f"capability.files: {redact_uri(uri)}: there is no such file, and nothing in such "
                "a folder; check the path"
            )
        found |= files
    return found


def _on_disk(path: str) -> Iterator[tuple[str, str]]:
    if Path(path).exists():  # also when its name looks like a glob
        names = _below(path)
    else:
        place = Place.of(path)
        pattern, root = place.pattern, place.root.rstrip("/") + "/"
        names = (n for n in _below(place.root) if pattern and pattern.fullmatch(n[len(root) :]))
    for name in names:
        yield name, _hash(name)


def _below(path: str) -> Iterator[str]:
    """Yield the files below folder *path*, or itself; through links, each folder once."""
    if Path(path).is_file():
        yield path
        return
    seen = set()
    for folder, inside, files in os.walk(path, followlinks=True, onerror=_refuse):
        real = Path(folder).resolve()
        if real in seen:  # a link upwards would never end
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if name != "__pycache__")
        names = (f"{folder.rstrip('/')}/{name}" for name in sorted(files))
        yield from (name for name in names if Path(name).is_file() or Path(name).is_symlink())


def _refuse(error: OSError) -> NoReturn:
    reason = error.strerror or type(error).__name__
    raise InvalidSpecError(
        f"capability.files: {error.filename} cannot be read: {reason}"
    ) from error


def _hash(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        _refuse(error)


def _elsewhere(uri: str, spec: BatchSpec) -> Iterator[tuple[str, str]]:
    options = spec.source.storage_options
    storage, key = locate(uri, storage_options=options)
    entry = storage.head(key)
    if entry is not None:
        yield uri, _identity(entry)
        return
    place = Place.of(uri)
    for entry in open_storage(place.root, storage_options=options).list(recursive=True):
        if place.pattern is None or place.pattern.fullmatch(entry.key):
            yield f"{place.root.rstrip('/')}/{entry.key}", _identity(entry)


def _identity(entry: Entry) -> str:
    return f"{entry.size} bytes, {entry.identity}"
