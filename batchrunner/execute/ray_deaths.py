"""Deaths of Ray's workers: passed on as a heartbeat, in place of the ten lines that Ray prints for each.

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
_RETRIED = re.compile(r"Task \S+ failed\. There are infinite retries remaining")
_log = logging.getLogger(__name__)


@contextmanager
def deaths_heard(hear: Hear) -> Iterator[None]:
    """Call *hear* for each worker that dies inside the block, in Ray's thread.

    With `-v`, Ray's text is logged. What else Ray prints, such as that memory ran out, it still prints.
    """
    theirs = getattr(import_module(_MODULE), _NAME, None)

    def ours(data: Mapping[str, Any], *arguments: Any, **named: Any) -> None:
        text = "\n".join(data["lines"]) if data.get("pid") == "raylet" else ""
        death = _DEATH.search(text)
        if death:
            hear(Heartbeat(death[1], WorkerPhase.DIED))
        if death or _RETRIED.search(text):
            _log.info("%s", text)
        elif theirs is not None:
            theirs(data, *arguments, **named)

    with replaced(_MODULE, _NAME, ours):
        yield
