"""The analytics contract, kept on a disk, in memory and on two S3 servers."""

import uuid

import pytest

import batchrunner.testing.memory  # noqa: F401 - its scheme
from batchrunner.analytics import open_store
from batchrunner.testing.analytics_contract import AnalyticsContract


class TestOnDisk(AnalyticsContract):
    rounds = 20

    @pytest.fixture
    def store(self, tmp_path):
        return open_store(tmp_path / "store")


class TestInMemory(AnalyticsContract):
    @pytest.fixture
    def store(self):
        return open_store(f"memory://{uuid.uuid4().hex}/store")


class TestOnMoto(AnalyticsContract):
    @pytest.fixture
    def store(self, moto, prefix):
        uri = f"s3://{moto.bucket}/{prefix}"
        return open_store(uri, storage_options=moto.storage_options)


@pytest.mark.s3
class TestOnSeaweedFS(AnalyticsContract):
    contenders = 3  # who loses a race there may wait a second
    rounds = 2

    @pytest.fixture
    def store(self, seaweedfs, prefix):
        uri = f"s3://{seaweedfs.bucket}/{prefix}"
        return open_store(uri, storage_options={**seaweedfs.storage_options, "anon": False})

    # Dozens of stores each; moto shows it for buckets.
    test_a_read_is_right_whatever_is_compacted_between_two_of_its_steps = None
