"""What the tests are made of: contract suites, fakes, servers and faults, for your tests too."""

import sys

if "pytest" in sys.modules:  # a fake may also be used without it
    import pytest

    # Before they are imported: a failed promise then shows the values, not a bare AssertionError.
    for _suite in ("analytics", "formats", "jobs", "storage"):
        pytest.register_assert_rewrite(f"{__name__}.{_suite}_contract")
