"""The libraries of this package's extras: imported where they are used, so that only their users need them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from batchrunner.errors import CapabilityImportError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Say what to install if an import inside the block, of a library of the extra *name*, finds nothing.

    Raises:
        CapabilityImportError: It is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CapabilityImportError(
            f"the module {error.name!r} is not installed where the worker runs: pip install "
            f"'batchrunner[{name}]'; on a cluster, have ray.runtime_env do so"
        ) from error
