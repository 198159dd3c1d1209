"""Copies of a model's files on this node: each is fetched once, however many workers the node has."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

_log = logging.getLogger(__name__)


def local_copy(uri: str) -> str:
    """Return the path of a copy on this node of *uri*, a file or a folder on S3 or any storage of fsspec.

    What is no URI, such as a path or the name of a model in a hub, is returned as it is. Copies lie in
    `~/.cache/batchrunner` (or below XDG_CACHE_HOME), by name and identity: an object that changes is fetched
    anew. Atomic: a copy is complete or not there. Safe in several processes: one fetches, the others wait.
    Credentials are those of the environment.

    Raises:
        FileNotFoundError: There is nothing at *uri*.
        OSError: It cannot be read, or changed meanwhile.
    """
    if "://" not in uri:
        return uri
    import fsspec

    storage, root = fsspec.url_to_fs(uri)
    files = _files(storage, root)
    folder = _cache() / _identity(uri, files)
    copy = folder / PurePosixPath(root).name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, or its process dies
        if not folder.exists():
            _log.info("fetching %s", uri)
            _fetch(storage, root, files, into=folder)
    return str(copy)


def _files(storage: Any, root: str) -> dict[str, Mapping[str, Any]]:
    storage.invalidate_cache()
    info = storage.info(root)
    files = {root: info} if info["type"] == "file" else storage.find(root, detail=True)
    if not files:
        raise FileNotFoundError(f"{root} has no files")
    return dict(files)


def _identity(uri: str, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a name for what *uri* holds now: other sizes, tags or times give another one."""
    facts = [
        (name, *(str(info.get(key)) for key in ("size", "ETag", "mtime", "LastModified")))
        for name, info in sorted(files.items())
    ]
    return hashlib.sha256(json.dumps([uri, facts]).encode()).hexdigest()[:32]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "batchrunner"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetch(storage: Any, root: str, files: Mapping[str, Mapping[str, Any]], *, into: Path) -> None:
    part = into.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that died: its lock is ours now
    for name, info in files.items():
        target = part / PurePosixPath(root).name / PurePosixPath(name).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        storage.get_file(name, str(target))
        if target.stat().st_size != info["size"]:
            raise OSError(f"{name} changed while it was fetched: run again")
    part.rename(into)  # last: who finds the folder finds all of it
