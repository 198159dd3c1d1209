"""Looks at this machine: Python and packages, memory, disks, open files, GPUs, variables."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from batchrunner.doctor.results import Check, CheckResult, fail, ok, warn

GIB = 1 << 30
_LEAST_MEMORY = 1 * GIB
_LEAST_SHARED = GIB // 2
_LEAST_DISK, _MUCH_DISK = GIB // 5, 2 * GIB
_LEAST_FILES = 4096
_SHARED = "/dev/shm"  # noqa: S108 - where Ray keeps its objects
_TOKEN_FILE = "~/.ray/auth_token"  # noqa: S105 - its place
_GPU_SECONDS = 10
_OURS = ("AWS_", "BATCHRUNNER_", "RAY_", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "TMPDIR")


def machine_checks() -> list[Check]:
    """Return the checks that need no spec."""
    return [
        Check("python", lambda: [_python()]),
        Check("packages", lambda: [_packages()]),
        Check("memory", lambda: [_memory()]),
        Check("disk", lambda: [disk_at("temporary files", tempfile.gettempdir())]),
        Check("shared memory", lambda: [_shared_memory()]),
        Check("open files", lambda: [_open_files()]),
        Check("variables", lambda: [_variables()]),
        Check("ray token", lambda: [_token()]),
    ]


def _python() -> CheckResult:
    return ok("python", f"{platform.python_version()}, {sys.executable}")


def _packages() -> CheckResult:
    """Compare what is installed with what this version of batchrunner requires."""
    wrong = list(_unmet())
    if wrong:
        again = "pip install --upgrade batchrunner, into the environment that runs this command"
        return fail("packages", "; ".join(wrong), again)
    names = ("batchrunner", "ray", "pyarrow", "s3fs", "pydantic")
    return ok("packages", ", ".join(f"{name} {version(name)}" for name in names))


def _unmet() -> Iterator[str]:
    from packaging.requirements import Requirement

    for text in requires("batchrunner") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is not installed"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {found}, and {wanted.specifier} is needed"


def _memory() -> CheckResult:
    free = _free_memory()
    if free is None:
        return ok("memory", f"{os.cpu_count()} CPUs; this system does not say how much is free")
    fact = f"{os.cpu_count()} CPUs, {free / GIB:,.1f} GiB free"
    if free < _LEAST_MEMORY:
        return warn("memory", fact, "Ray and one worker need a GiB: free some, or engine: local")
    return ok("memory", fact)


def _free_memory() -> int | None:
    """Return the bytes that this process may still take: of the machine, or of its container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    free = int(fields["MemAvailable"].split()[0]) << 10
    return min(free, *_left_in_container(), free)


def _left_in_container() -> Iterator[int]:
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = Path("/sys/fs/cgroup")
        try:
            yield int((folder / most).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # ValueError: "max", which is no limit
            continue


def disk_at(check: str, path: str) -> CheckResult:
    """Look at how much room is at *path*, an existing folder."""
    try:
        free = shutil.disk_usage(path).free
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        return fail(check, f"{path}: {error.strerror or error}", "make it, or set TMPDIR")
    fact = f"{path}: {free / GIB:,.1f} GiB free"
    if not writable:
        return fail(check, f"{path} cannot be written", "change its owner, or name another")
    if free < _LEAST_DISK:
        return fail(check, fact, "free some; for temporary files, TMPDIR names another folder")
    if free < _MUCH_DISK:
        return warn(check, fact, "a part is staged there before it is published: free some")
    return ok(check, fact)


def _shared_memory() -> CheckResult:
    if not Path(_SHARED).is_dir():
        return ok("shared memory", f"this system has no {_SHARED}")
    free = shutil.disk_usage(_SHARED).free
    fact = f"{_SHARED}: {free / GIB:,.1f} GiB free"
    if free < _LEAST_SHARED:
        larger = "Ray keeps its objects there: free some, or start the container with --shm-size=2g"
        return warn("shared memory", fact, larger)
    return ok("shared memory", fact)


def _open_files() -> CheckResult:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "any number" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    fact = f"{soft:,} may be open, and {most} if a process asks for more"
    if hard != resource.RLIM_INFINITY and hard < _LEAST_FILES:
        return warn("open files", fact, "Ray needs thousands with many workers: ulimit -Hn 65536")
    return ok("open files", fact)


def _variables() -> CheckResult:
    """List variables that change how a run behaves: their names, since values may be secret."""
    names = sorted(name for name in os.environ if name.startswith(_OURS))
    return ok("variables", ", ".join(names) if names else "none of AWS, Ray or batchrunner is set")


def place_of_token() -> str | None:
    """Return the variable or the file that Ray takes a token from, in Ray's order; None if there is none."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name
    return _TOKEN_FILE if Path(_TOKEN_FILE).expanduser().is_file() else None


def _token() -> CheckResult:
    mode = os.environ.get("RAY_AUTH_MODE")
    how = f"RAY_AUTH_MODE is {mode}" if mode else "RAY_AUTH_MODE is not set"
    place = place_of_token()
    if place is None:
        return ok("ray token", f"none here; {how}. A cluster that requires one needs it")
    if place == "RAY_AUTH_TOKEN_PATH" and not Path(os.environ[place]).expanduser().is_file():
        return warn("ray token", f"{place} names no file; {how}", f"unset {place}, or correct it")
    return ok("ray token", f"found in {place}; {how}")


def gpus_of_driver() -> Sequence[str] | None:
    """Return the GPUs that NVIDIA's driver lists on this machine; None without that driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    line = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed line
            line, capture_output=True, text=True, check=True, timeout=_GPU_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()
