"""Where a run is, as people say it on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage, open_storage
from batchrunner.worker.work import checkpoint_storage


def checkpoint_of(place: str, storage_options: Mapping[str, Any]) -> Storage:
    """Return the checkpoint of *place*: a spec, or the checkpoint's folder or URI.

    A spec has options of its own; *storage_options* are for the others.
    """
    if is_spec(place):
        return checkpoint_storage(BatchSpec.from_yaml(place))
    return open_storage(place, storage_options=storage_options)


def is_spec(place: str) -> bool:
    """Tell whether *place* names a spec."""
    return place.endswith((".yaml", ".yml"))
