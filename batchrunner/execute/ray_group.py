"""A Ray of our own in process groups of its own: a signal to ours asks us to stop, and not Ray.

`kill -TERM -- -$PGID`, a shell's or a supervisor's, would end Ray under the shards that are to be
finished; and a Ray that loses its first process while it starts holds the whole interpreter, signal
handlers too, for half a minute. It ends with this process all the same: the kernel sees to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from subprocess import Popen

from batchrunner.execute.bare_ray_data import exchanged

_SERVICES = "ray._private.services"


@contextmanager
def in_groups_of_its_own() -> Iterator[None]:
    """Have what Ray starts inside the block not be in our process group."""
    usual = getattr(import_module(_SERVICES), "ConsolePopen", None)
    with exchanged(_SERVICES, "ConsolePopen", partial(usual or Popen, process_group=0)):
        yield
