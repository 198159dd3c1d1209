"""Looks at Ray from a process of its own, which can be killed: `python -m batchrunner.execute.ray_probe`.

Reads a JSON object from stdin and writes one to stdout: what Ray is like, and what its nodes are like.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

from batchrunner.errors import BatchRunnerError, describe
from batchrunner.execute.payload import import_paths
from batchrunner.execute.ray_address import LOCAL, resolve
from batchrunner.execute.ray_authentication import authentication_at
from batchrunner.execute.ray_connection import connected, workers_that_fit
from batchrunner.execute.stage_room import Room, needs_of, texts
from batchrunner.execute.workers import workers_with_stages
from batchrunner.spec import ExecutionSpec, RaySpec, StageSpec
from batchrunner.spec.secrets import remember, scrubbed

_MOST_NODES = 32
_NODE_SECONDS = 60.0


def main() -> None:
    """Answer what was asked."""
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_asker, daemon=True).start()
    stdout = os.dup(1)
    os.dup2(2, 1)  # what Ray and the capability print must not mix with the answer
    try:
        answer = _looked(asked)
    except BatchRunnerError as error:
        answer = {"error": scrubbed(str(error))}
    except Exception as error:  # noqa: BLE001 - Ray raises anything
        answer = {"error": scrubbed(describe(error))}
    os.write(stdout, json.dumps(answer).encode() + b"\n")


def _end_with_asker() -> None:
    """End this process when the one that asked is gone; the Ray that it started ends with it."""
    sys.stdin.read()
    os._exit(1)


def _looked(asked: dict[str, Any]) -> dict[str, Any]:
    remember(asked["ray"])
    chosen = RaySpec.model_validate(asked["ray"])
    address = resolve(chosen.address)
    began = time.monotonic()
    with connected(chosen):
        started = time.monotonic() - began
        return {
            "address": chosen.address,
            "is_local": address == LOCAL,
            "seconds": started,
            "authentication": "" if address == LOCAL else authentication_at(address),
            **_room(asked),
            **_nodes(asked),
        }


def _room(asked: dict[str, Any]) -> dict[str, Any]:
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room: dict[str, Any] = {"cpus": total.get("CPU", 0), "gpus": total.get("GPU", 0)}
    if asked["execution"] is None:
        return room
    wanted = ExecutionSpec.model_validate(asked["execution"])
    try:
        return {**room, **_workers(wanted, asked.get("stages") or [])}
    except BatchRunnerError as error:
        return {**room, "workers": 0, "no_room": scrubbed(str(error))}


def _workers(execution: ExecutionSpec, stages: list[dict[str, Any]]) -> dict[str, Any]:
    if not stages:
        return {"workers": workers_that_fit(execution, may_grow=False)}
    workers = workers_with_stages(execution)
    wanted = [StageSpec.model_validate(stage) for stage in stages]
    wanted = [stage.within(execution, batch_size=execution.batch_size) for stage in wanted]
    needs = needs_of(wanted, Room.of_cluster(workers=workers), may_grow=False)
    return {"workers": workers, "stages": texts(needs)}


def _nodes(asked: dict[str, Any]) -> dict[str, Any]:
    import ray

    look = ray.remote(num_cpus=0)(_look)
    listed: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in listed if node["Alive"]]
    began = time.time()
    asked = {**asked, "import_paths": import_paths()}
    answers = {look.options(**_on(node)).remote(asked): node for node in alive[:_MOST_NODES]}
    found = []
    waiting = list(answers)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=_NODE_SECONDS)
        found += [_answered(one, answers[one], began) for one in done]
        if not done:
            break
    found += [{"node": _name(answers[one]), "error": "no answer"} for one in waiting]
    return {"alive": len(alive), "nodes": found}


def _on(node: dict[str, Any]) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


def _name(node: dict[str, Any]) -> str:
    return str(node.get("NodeManagerHostname") or node.get("NodeManagerAddress"))


def _answered(answer: Any, node: dict[str, Any], began: float) -> dict[str, Any]:
    import ray

    try:
        seen: dict[str, Any] = ray.get(answer)
    except Exception as error:  # noqa: BLE001 - whatever a worker dies of is what was looked for
        return {"node": _name(node), "error": scrubbed(describe(error))}
    # The worker read its clock between these two times of ours.
    ahead = max(0.0, seen["clock"] - time.time()) - max(0.0, began - seen["clock"])
    return {"node": _name(node), **seen, "clock": ahead}


def _look(asked: dict[str, Any]) -> dict[str, Any]:
    """Look at the machine of a worker. Sent by value: batchrunner may be missing there."""
    import platform
    from importlib import import_module
    from importlib.metadata import PackageNotFoundError, version

    def of_package(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    problem = ""
    if asked["modules"]:
        present = set(sys.path)
        sys.path[:0] = [p for p in asked["import_paths"] if p not in present and os.path.isdir(p)]  # noqa: PTH112 - a string stays one
        try:
            for name in asked["modules"]:
                import_module(name)
        except BaseException as error:  # noqa: BLE001 - importing runs the user's code
            problem = f"{type(error).__name__}: {error}"
    versions = {name: of_package(name) for name in ("ray", "batchrunner", *asked["packages"])}
    python = platform.python_version()
    return {"versions": {"python": python, **versions}, "import": problem, "clock": time.time()}


if __name__ == "__main__":
    main()
