"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from batchrunner import __version__

_PACKAGES = ("ray", "pyarrow", "orjson", "pandas", "numpy")


def about_this_machine() -> dict[str, Any]:
    """Return what one has to know to compare numbers with those of another machine."""
    return {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": {
            "cpus": os.cpu_count(),
            "cpu": _first_value("/proc/cpuinfo", "model name"),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{platform.system()} {platform.release()}",
            "disk": _file_system(Path(__file__)),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "python": platform.python_version(),
            "batchrunner": __version__,
            **{package: version(package) for package in _PACKAGES},
        },
    }


def _first_value(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _file_system(path: Path) -> str:
    """Return the kind of file system that *path* is on."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    own = [(mount[1], mount[2]) for mount in mounts if path.resolve().is_relative_to(mount[1])]
    return max(own, key=lambda mount: len(mount[0]))[1]
