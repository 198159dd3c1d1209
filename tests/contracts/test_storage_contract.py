"""The storage contract, kept by a disk, by memory and by two S3 servers."""

import uuid

import pytest

from batchrunner.storage.below import Below
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.storage.s3.storage import S3Storage
from batchrunner.testing.faulty import Faults, FaultyStorage
from batchrunner.testing.memory import MemoryStorage
from batchrunner.testing.storage_contract import StorageContract


class TestLocalStorage(StorageContract):
    rounds = 20

    @pytest.fixture
    def storage(self, tmp_path):
        return LocalStorage(str(tmp_path / "root"))

    @pytest.fixture
    def twin(self, tmp_path):
        return LocalStorage(str(tmp_path / "root"))


class TestMemoryStorage(StorageContract):
    rounds = 20

    @pytest.fixture
    def storage(self):
        return MemoryStorage(f"{uuid.uuid4().hex}/below")

    @pytest.fixture
    def twin(self, storage):
        return MemoryStorage(storage.uri.removeprefix("memory://"))


class TestS3StorageOnMoto(StorageContract):
    has_server_in_process = True

    @pytest.fixture
    def storage(self, moto, prefix):
        return S3Storage(moto.bucket, prefix, storage_options=moto.storage_options)

    @pytest.fixture
    def twin(self, moto, prefix):
        return S3Storage(moto.bucket, prefix, storage_options=moto.storage_options)

    # moto looks and completes in two steps, so that both may win; SeaweedFS shows it below.
    test_of_two_large_publishers_one_wins = None


@pytest.mark.s3
class TestS3StorageOnSeaweedFS(StorageContract):
    contenders = 3  # who loses a race there may wait a second
    rounds = 2

    @pytest.fixture
    def storage(self, seaweedfs, prefix):
        return S3Storage(seaweedfs.bucket, prefix, storage_options=seaweedfs.storage_options)

    @pytest.fixture
    def twin(self, seaweedfs, prefix):
        return S3Storage(seaweedfs.bucket, prefix, storage_options=seaweedfs.storage_options)


class TestAFolderOfAStorage(StorageContract):
    """What `--fresh` keeps its records in."""

    @pytest.fixture
    def storage(self, tmp_path):
        return Below(LocalStorage(str(tmp_path / "root")), "folder/below")

    @pytest.fixture
    def twin(self, tmp_path):
        return Below(LocalStorage(str(tmp_path / "root")), "folder/below")


class TestFaultyStorage(StorageContract):
    """Which has to be a good storage as long as nothing fails."""

    @pytest.fixture
    def storage(self):
        return FaultyStorage(MemoryStorage(f"{uuid.uuid4().hex}/below"), Faults())

    @pytest.fixture
    def twin(self, storage):
        return FaultyStorage(MemoryStorage(storage.uri.removeprefix("memory://")), Faults())
