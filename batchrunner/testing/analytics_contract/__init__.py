"""Tests for any analytics store: subclass `AnalyticsContract`, and give it a store.

    class TestMyStore(AnalyticsContract):
        @pytest.fixture
        def store(self, tmp_path): return open_store(tmp_path)      # an empty one for each test

`twin` is a second store at the same place, as another process would have it. DuckDB is needed.
"""

from __future__ import annotations

import pytest

from batchrunner.analytics import AnalyticsStore, open_store
from batchrunner.storage import Storage, open_storage
from batchrunner.testing.analytics_contract.compacting import CompactionContract
from batchrunner.testing.analytics_contract.reading import ReadingContract
from batchrunner.testing.analytics_contract.recording import RecordingContract
from batchrunner.testing.analytics_contract.runs import Score as Score
from batchrunner.testing.analytics_contract.runs import WiderScore as WiderScore
from batchrunner.testing.analytics_contract.runs import a_run as a_run
from batchrunner.testing.analytics_contract.runs import interrupted_store as interrupted_store
from batchrunner.testing.analytics_contract.runs import once as once
from batchrunner.testing.analytics_contract.runs import some_runs as some_runs
from batchrunner.testing.analytics_contract.runs import times_seen as times_seen


class AnalyticsContract(RecordingContract, ReadingContract, CompactionContract):
    """The promises of the store, one test each.

    Attributes:
        contenders: Threads in a race; set fewer for a store where the loser of a race waits long.
        rounds: Reads in the test that reads while other threads write and compact.
    """

    @pytest.fixture
    def twin(self, store: AnalyticsStore) -> AnalyticsStore:
        """Return a second store at the same place."""
        return open_store(store.config)

    @pytest.fixture
    def raw(self, store: AnalyticsStore) -> Storage:
        """Return the storage below the store, to inspect and damage files."""
        return open_storage(store.uri, storage_options=store.config.storage_options)
