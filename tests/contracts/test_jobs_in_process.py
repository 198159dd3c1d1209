"""The job contract, kept by the backend "in-process"; and what only that backend has."""

import pytest

from batchrunner.testing.jobs_contract import JobsContract, OneJobPerRunContract


class TestInProcess(OneJobPerRunContract, JobsContract):
    kind = "in-process"

    @pytest.fixture
    def options(self, tmp_path):
        return {"analytics_store": {"uri": str(tmp_path / "store")}, "num_cpus": 8}
