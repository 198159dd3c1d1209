"""Where a run lives: opens the storages that its spec names, in the same way for all callers."""

from __future__ import annotations

from dataclasses import dataclass

from batchrunner.checkpoint.store import Checkpoint
from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage, open_storage


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
