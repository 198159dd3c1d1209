"""A client of Ray in a process of its own: `python ray_doors.py`, with steps as JSON on stdin.

A step is an address and what the environment has meanwhile; a line of JSON says how it ended: the
message of the refusal, or what a task returned that the driver's own objects went to, and what
was left of the environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import ray

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.ray_connection import connect
from batchrunner.spec import RaySpec

AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_calls = 0


def fails_once(runtime_env: Any) -> Any:
    """Fail the first start: what `RAY_RUNTIME_ENV_HOOK` names is called whenever Ray starts."""
    global _calls  # noqa: PLW0603 - Ray calls a function, by its name
    _calls += 1
    if _calls == 1:
        raise TimeoutError("too slow")
    return runtime_env


def work() -> int:
    """Have an actor ask the driver's process for an object of its own, and the cluster for a task."""

    @ray.remote
    class Asks:
        def sum(self, refs: list[Any]) -> int:
            return sum(ray.get(refs))

    @ray.remote
    def two() -> int:
        return 2

    asks = Asks.remote()  # type: ignore[attr-defined]  # Ray is half typed
    return int(ray.get(asks.sum.remote([ray.put(1), two.remote()]), timeout=60))


def take(address: str, environment: dict[str, str]) -> dict[str, Any]:
    for name in AUTHENTICATION:
        os.environ.pop(name, None)
    os.environ.update(environment)
    began = time.monotonic()
    try:
        connect(RaySpec(address=address))
        said: Any = work()
    except RayUnavailableError as error:
        said = str(error)
    finally:
        ray.shutdown()
    left = {name: os.environ[name] for name in AUTHENTICATION if name in os.environ}
    return {"said": said, "seconds": time.monotonic() - began, "kept": left == environment}


def main() -> None:
    for address, environment in json.load(sys.stdin):
        sys.stdout.write(json.dumps(take(address, environment)) + "\n")


if __name__ == "__main__":
    main()
