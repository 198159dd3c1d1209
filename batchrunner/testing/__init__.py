"""Test tools, for your tests too: contract suites, fakes, servers and injected faults."""

import sys

_SUITES = ("analytics_contract", "formats_contract", "jobs_contract", "storage_contract")

# Registered before the suites are imported: otherwise their failures are bare AssertionErrors. Only
# under pytest, as runs import the storage `memory`, and may not have pytest.
if _pytest := sys.modules.get("pytest"):
    _pytest.register_assert_rewrite(*(f"{__name__}.{suite}" for suite in _SUITES))
