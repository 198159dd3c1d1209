"""What the tests are made of: contract suites, fakes, servers and faults, for your tests too."""

import sys

_SUITES = ("analytics_contract", "formats_contract", "jobs_contract", "storage_contract")

# Before the suites are imported, and only under pytest: without it, a suite's failure is a bare
# AssertionError. The storage `memory` is imported by runs, where there may be no pytest.
if _pytest := sys.modules.get("pytest"):
    _pytest.register_assert_rewrite(*(f"{__name__}.{suite}" for suite in _SUITES))
