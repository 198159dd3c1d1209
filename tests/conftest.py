"""Servers that are started once for all tests that ask for them."""

import uuid

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

pytest.register_assert_rewrite("batchrunner.testing.storage_contract")
pytest.register_assert_rewrite("batchrunner.testing.analytics_contract")

from batchrunner.testing.fault_proxy import fault_proxy  # noqa: E402 -- asserts first
from batchrunner.testing.s3_servers import (  # noqa: E402 -- asserts first
    moto_server,
    rclone_server,
    seaweedfs_server,
)


@pytest.fixture(scope="session")
def moto():
    """S3 in this process."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs():
    """S3 in a process of its own."""
    with seaweedfs_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone():
    """S3 without conditional writes."""
    with rclone_server() as server:
        yield server


@pytest.fixture
def prefix():
    """A prefix that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def proxy(seaweedfs):
    """A fault proxy in front of SeaweedFS; inject faults, or nothing, before use."""
    with fault_proxy(seaweedfs) as running:
        yield running
