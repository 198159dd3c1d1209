"""Looks at Ray, its workers and its GPUs, and imports the capability: each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, cast

from batchrunner.capability import code_of
from batchrunner.doctor.machine import gpus_of_driver, place_of_token
from batchrunner.doctor.results import Check, CheckResult, fail, ok, warn
from batchrunner.doctor.storages import clock_finding
from batchrunner.driver.packages import versions_of
from batchrunner.errors import BatchRunnerError
from batchrunner.spec import BatchSpec

_IMPORT = "import sys; from batchrunner.capability import load_target\nfor t in sys.argv[1:]: load_target(t)"
_LAST_LINES = 3


def capability_check(spec: BatchSpec, *, seconds: float) -> Check:
    """Return the check that imports the capability of *spec*."""
    return Check("capability", lambda: [_capability(spec, seconds)])


def _capability(spec: BatchSpec, seconds: float) -> CheckResult:
    targets = spec.called.targets
    line = [sys.executable, "-c", _IMPORT, *targets]
    with tempfile.TemporaryFile("w+") as errors:  # not a pipe: a fork of it may hold that open
        try:
            done = subprocess.run(  # noqa: S603 - the user's own code
                line,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                timeout=seconds,
                check=False,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            slow = "see what it does when it is imported: --timeout waits longer"
            return fail("capability", f"its import takes more than {seconds:g} s", slow)
        errors.seek(0)
        said = errors.read().strip().splitlines()[-1:]
    if done.returncode == 0:
        return ok("capability", f"{', '.join(targets)} can be imported here")
    said = said or [f"the import ended with {done.returncode}"]
    return fail("capability", said[0].partition("CapabilityImportError: ")[2] or said[0])


def _environment(**more: str) -> dict[str, str]:
    """Return the environment of a child that imports what this process does."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **more}


def ray_check(spec: BatchSpec | None, *, seconds: float) -> Check:
    """Return the check of Ray: the one of *spec*, or a local one."""
    return Check("ray", lambda: list(_ray(spec, seconds)))


def _ray(spec: BatchSpec | None, seconds: float) -> Iterator[CheckResult]:
    if spec is not None and spec.execution.engine == "local":
        yield ok("ray", "not used: execution.engine is local")
        yield from _gpus(spec, None)
        return
    modules, versions = _needed(spec)
    packages = [name for name in versions if name != "python"]
    asked = {**_sections(spec), "modules": modules, "packages": packages}
    seen = _asked_of_child(asked, seconds=seconds)
    if "error" in seen:
        yield fail("ray", seen["error"])
        yield from _gpus(spec, None)
        return
    yield _described(seen)
    yield from _gpus(spec, seen)
    yield from _workers(seen, {**versions, **_own_versions()})


def _sections(spec: BatchSpec | None) -> dict[str, Any]:
    """Return what the probe reads of *spec*. It goes through a pipe, since it may hold secrets."""
    if spec is None:
        return {"ray": {}, "execution": None}
    sections = {"ray": spec.ray, "execution": spec.execution}
    asked = {n: one.model_dump(mode="json", exclude_defaults=True) for n, one in sections.items()}
    stages = spec.called.stages or ()
    return {
        **asked,
        "stages": [one.model_dump(mode="json", exclude_defaults=True) for one in stages],
    }


def _needed(spec: BatchSpec | None) -> tuple[list[str], dict[str, str]]:
    """Return the modules that a worker imports, and the versions here of the packages they import."""
    if spec is None or spec.capability is None:
        return [], {}
    targets = spec.called.targets
    try:
        versions = versions_of(code_of(targets).installed)
    except BatchRunnerError:  # the line of the capability says so
        return [], {}
    return sorted({target.partition(":")[0] for target in targets}), versions


def _own_versions() -> dict[str, str]:
    return {name: version(name) for name in ("ray", "batchrunner")} | versions_of(())


def _asked_of_child(asked: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    """Ask the probe; end it, and the Ray that it started, when time is up."""
    # A folder of its own, which is removed, since Ray leaves its logs behind. Its path is short: sockets
    # lie in it, too.
    with tempfile.TemporaryDirectory(prefix="br-", ignore_cleanup_errors=True) as folder:
        code = _code_of_child(asked, seconds, Path(folder))
        if code is None:
            return {"error": f"Ray gave no answer within {seconds:g} s; --timeout waits longer"}
        try:
            return dict(json.loads(Path(folder, "answer").read_text()))
        except ValueError:
            last = " / ".join(Path(folder, "said").read_text().strip().splitlines()[-_LAST_LINES:])
            return {"error": f"the process that used Ray ended with {code}: {last}"}


def _code_of_child(asked: Mapping[str, Any], seconds: float, folder: Path) -> int | None:
    """Run the probe to its end and return its exit code; None if it had to be ended."""
    with (
        (folder / "answer").open("wb") as answer,
        (folder / "said").open("wb") as said,
        subprocess.Popen(
            [sys.executable, "-m", "batchrunner.execute.ray_probe"],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=said,
            env=_environment(RAY_TMPDIR=str(folder), **_token(asked)),
        ) as child,
    ):
        stdin = cast(IO[bytes], child.stdin)  # stays open: the probe ends when it is closed
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(asked).encode() + b"\n")
            stdin.flush()
        try:
            return child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            return None


def _token(asked: Mapping[str, Any]) -> dict[str, str]:
    """Return a token for a local Ray where there is none: Ray would make one, and leave it in a file."""
    is_local = asked["ray"].get("address", "local") == "local"
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if is_local and not place_of_token() else {}


def _described(seen: Mapping[str, Any]) -> CheckResult:
    how = (
        f"a local Ray started in {seen['seconds']:.0f} s"
        if seen["is_local"]
        else f"{seen['address']} accepts this process, {seen['authentication']}"
    )
    fact = f"{how}: {seen['alive']} nodes, {seen['cpus']:g} CPUs, {seen['gpus']:g} GPUs"
    if "no_room" in seen and seen["is_local"]:
        return fail("ray", seen["no_room"])
    if "no_room" in seen:
        return warn("ray", seen["no_room"], "the run waits for the cluster to grow")
    room = f"; room for {seen['workers']:,} workers" if "workers" in seen else ""
    if "stages" in seen:
        room = f"; room for the stages {seen['stages']}"
    return ok("ray", fact + room)


def _gpus(spec: BatchSpec | None, seen: Mapping[str, Any] | None) -> Iterator[CheckResult]:
    driver = gpus_of_driver()
    asked = _gpus_asked(spec) if spec else 0
    here = "NVIDIA's driver is not here" if driver is None else f"here: {', '.join(driver)}"
    if seen is not None and driver and seen["is_local"] and not seen["gpus"]:
        unseen = "see CUDA_VISIBLE_DEVICES, and the permissions of /dev/nvidia*"
        yield warn("gpu", f"{here}, but Ray sees none", unseen)
    elif asked and seen is not None and not seen["gpus"]:
        none = f"a worker needs {asked:g}, and Ray has none ({here})"
        yield fail("gpu", none, "set execution.num_gpus: 0, or ray.address to a cluster with GPUs")
    else:
        ray = "" if seen is None else f"Ray sees {seen['gpus']:g}; "
        yield ok("gpu", f"{ray}{here}; a worker asks for {asked:g}")


def _gpus_asked(spec: BatchSpec) -> float:
    """Return the most GPUs that one worker of *spec*, or of a stage of it, needs."""
    return max([stage.num_gpus or 0.0 for stage in spec.stages] or [spec.execution.num_gpus])


def _workers(seen: Mapping[str, Any], versions: Mapping[str, str]) -> Iterator[CheckResult]:
    nodes: Sequence[Mapping[str, Any]] = seen["nodes"]
    problems = [found for node in nodes for found in _problems(node, versions)]
    if problems:
        yield from problems
        return
    names = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    yield ok("workers", f"{len(nodes)} of {seen['alive']} nodes have what is here: {names}")


def _problems(node: Mapping[str, Any], versions: Mapping[str, str]) -> Iterator[CheckResult]:
    name = f"worker {node['node']}"
    if "error" in node:
        yield fail(name, node["error"], "see `ray status` and the logs on that node")
        return
    if node["import"]:
        bring = "ray.runtime_env: {working_dir: .} brings the code along, {pip: [...]} packages"
        yield fail(name, f"cannot import the capability: {node['import']}", bring)
    for package, here in versions.items():
        there = node["versions"].get(package)
        if there is None:
            yield fail(name, f"{package} is not installed", f"install {package} {here} there")
        elif there != here:
            yield warn(name, f"{package} is {there}, and {here} here", "install the same on both")
    if (clock := clock_finding(name, node["clock"], whose="its")).status != "ok":
        yield clock
