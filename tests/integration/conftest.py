from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before Ray is imported: its processes inherit these.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
TESTS = str(Path(__file__).parents[1])
PATHS = os.pathsep.join([str(Path(__file__).parents[2]), TESTS])


@pytest.fixture(scope="session")
def local_ray():
    """One Ray for all tests: a start takes seconds."""
    import logging

    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": PATHS}},
    )
    yield ray
    ray.shutdown()
