"""Where a run is, as people say it on the command line."""

from __future__ import annotations

from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage, open_storage
from batchrunner.worker.work import checkpoint_storage


def checkpoint_of(place: str) -> Storage:
    """Return the checkpoint of *place*: a spec, or the checkpoint's folder or URI."""
    if place.endswith((".yaml", ".yml")):
        return checkpoint_storage(BatchSpec.from_yaml(place))
    return open_storage(place)
