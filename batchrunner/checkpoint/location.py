"""Where a run lives: opens the storages that its spec names, in the same way for all callers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from batchrunner.checkpoint.store import Checkpoint
from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage, open_storage

_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class RunLocation:
    """A spec with its sink and its checkpoint, opened.

    Attributes:
        spec: What was asked for.
        sink: Where the parts are.
        checkpoint: The documents of the current run.
    """

    spec: BatchSpec
    sink: Storage
    checkpoint: Checkpoint

    @classmethod
    def of(cls, spec: BatchSpec) -> RunLocation:
        """Open sink and checkpoint of *spec*. Lists the checkpoint's runs, and writes nothing.

        Raises:
            StorageError: The checkpoint cannot be listed.
        """
        return RunLocation(spec, sink_storage(spec), Checkpoint.current(checkpoint_storage(spec)))


def sink_storage(spec: BatchSpec) -> Storage:
    """Open the sink of *spec*."""
    return open_storage(spec.sink.uri, storage_options=spec.sink.storage_options)


def checkpoint_storage(spec: BatchSpec) -> Storage:
    """Open the checkpoint of *spec*, with the sink's options if both have the same scheme."""
    # Options belong to a scheme: those of an s3:// sink mean nothing to a checkpoint on a disk.
    same = spec.checkpoint_uri.partition("://")[0] == spec.sink.uri.partition("://")[0]
    options = spec.sink.storage_options if same else {}
    return open_storage(spec.checkpoint_uri, storage_options=options)


def apart_from(spec: BatchSpec) -> list[str]:
    """Return the folders below the sink that hold source, checkpoint or analytics store."""
    uris = [_folder(uri) for uri in spec.source.uris]
    uris += [spec.checkpoint_uri, *([spec.analytics_store.uri] if spec.analytics_store else [])]
    below = (_below(spec.sink.uri, uri) for uri in uris)
    return [folder for folder in below if folder]


def _folder(uri: str) -> str:
    """Return the folder in *uri* before its first wildcard; *uri* itself without one."""
    pattern = _GLOB.search(uri)
    return uri[: pattern.start()].rpartition("/")[0] if pattern else uri


def _below(root: str, uri: str) -> str:
    """Return *uri* relative to *root*, with a slash at its end; "" if it is not below *root*."""
    if "://" not in root and "://" not in uri:
        root, uri = os.path.realpath(root), os.path.realpath(uri)
    root = root.rstrip("/") + "/"
    return f"{uri.removeprefix(root)}/" if uri.startswith(root) else ""
