"""Deaths of Ray's workers and machines: a line each, in place of the ten that Ray prints.

Its own text names neither a shard nor a way out, and advises about retries that are not ours.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from batchrunner.execute.bare_ray_data import replaced
from batchrunner.execute.ray_heartbeats import Hear
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase

_MODULE, _NAME = "ray._private.worker", "print_to_stdstream"
_DEATH = re.compile(r"A worker died or was killed while executing.*Worker PID: (\d+)", re.DOTALL)
_RAYLET = re.compile(r"Raylet is terminated")
_MACHINE = re.compile(
    r"The node with node id: \S+ and address: (\S+) .*has been marked dead", re.DOTALL
)
_RETRIED = re.compile(r"Task \S+ failed\. There are infinite retries remaining")
_log = logging.getLogger(__name__)


@contextmanager
def deaths_heard(hear: Hear) -> Iterator[None]:
    """Call *hear* for each worker that dies inside the block, in Ray's thread; log the death of a raylet.

    After the death of its own raylet, Ray (2.60) may end this process with code 1 and without a word: what
    is logged here is then the last that is said. With `-v`, Ray's text is logged. What else Ray prints, such
    as that memory ran out, it still prints.
    """
    said: set[str] = set()
    theirs = getattr(import_module(_MODULE), _NAME, None)

    def ours(data: Mapping[str, Any], *arguments: Any, **named: Any) -> None:
        text = "\n".join(data["lines"]) if data.get("pid") == "raylet" else ""
        death = _DEATH.search(text)
        if death:
            hear(Heartbeat(death[1], WorkerPhase.DIED))
        gone = _gone(text)
        if gone and gone not in said:
            said.add(gone)
            _log.warning("%s", gone)
        if death or gone or _RETRIED.search(text):
            _log.info("%s", text)
        elif theirs is not None:
            theirs(data, *arguments, **named)

    with replaced(_MODULE, _NAME, ours):
        yield


def _gone(text: str) -> str:
    """Return what to say of a raylet or machine that is gone; empty if *text* is not about one."""
    if _RAYLET.search(text):
        return (
            "a raylet, Ray's own process on a machine, is gone: killed, or out of memory. If the "
            "session ends with it: committed shards are kept, run the same line again"
        )
    machine = _MACHINE.search(text)
    return f"the machine {machine[1]} is gone from the cluster" if machine else ""
