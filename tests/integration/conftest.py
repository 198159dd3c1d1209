from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

# Before Ray is imported: its processes inherit these.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
STARTS = 8
"""Ray gives a node 30 seconds to start: too few for load 40 on 2 cores, and all tests on Ray would fail."""
TESTS = str(Path(__file__).parents[1])
PATHS = os.pathsep.join([str(Path(__file__).parents[2]), TESTS])


@pytest.fixture(scope="session")
def local_ray():
    """One Ray for all tests: a start takes seconds."""
    import ray

    for left in reversed(range(STARTS)):
        try:
            _start(ray)
            break
        except Exception:
            ray.shutdown()
            if not left:
                raise
    yield ray
    ray.shutdown()


def _start(ray):
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
    )


@pytest.fixture(scope="session")
def ray_address(local_ray):
    """For commands that need a Ray, not one of their own: `ray.address` of the one for all tests."""
    return local_ray.get_runtime_context().gcs_address
