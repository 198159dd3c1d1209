"""Tests for any `Storage`: subclass `StorageContract` and give it a storage.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self): return MyStorage(...)          # an empty one for each test

Override `twin` to give the races a second storage on the same root.
"""

from __future__ import annotations

import pytest

from batchrunner.storage.contract import Storage
from batchrunner.testing.storage_contract.acts import INTENT as INTENT
from batchrunner.testing.storage_contract.acts import ODD_KEYS as ODD_KEYS
from batchrunner.testing.storage_contract.acts import at_once as at_once
from batchrunner.testing.storage_contract.acts import entry_of as entry_of
from batchrunner.testing.storage_contract.acts import keys as keys
from batchrunner.testing.storage_contract.acts import publish as publish
from batchrunner.testing.storage_contract.acts import read_all as read_all
from batchrunner.testing.storage_contract.acts import staged as staged
from batchrunner.testing.storage_contract.objects import ObjectPromises
from batchrunner.testing.storage_contract.publishing import PublishPromises
from batchrunner.testing.storage_contract.reading import ReadPromises
from batchrunner.testing.storage_contract.removing import RemovePromises


class StorageContract(ObjectPromises, PublishPromises, ReadPromises, RemovePromises):
    """The promises of `batchrunner.storage.contract.Storage`, one test each."""

    @pytest.fixture
    def twin(self, storage: Storage) -> Storage:
        """Return a second storage on the same root, as another process would have it."""
        return storage
