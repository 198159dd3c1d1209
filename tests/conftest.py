"""Tiers (`--tier`), and the servers that are started once for all tests that ask for them."""

import os
import signal
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import batchrunner.testing.memory  # noqa: F401 -- makes memory:// known
from batchrunner.testing.fault_proxy import fault_proxy
from batchrunner.testing.s3_servers import moto_server, rclone_server, seaweedfs_server
from browser import a_chromium
from tiers import SOAK, TIERS, WITHOUT_SERVERS, marks_of, tier_of

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

ROOT = Path(__file__).parent


def pytest_addoption(parser):
    parser.addoption(
        "--tier",
        action="append",
        choices=TIERS,
        help="run the tests of this tier only; may be given several times (default: all but soak)",
    )


def pytest_configure(config):
    """Take Ray away from a process whose tests say that they need none; let Ctrl-C work in tests."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if chosen_tiers(config) <= WITHOUT_SERVERS:
        os.environ["RAY_TMPDIR"] = os.devnull
    # Ray's workers are at 15 by default: beside the sweeps they would get a thirtieth of a core.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 -- Ray's own spelling
    # An installed package has bytecode; without it, each process would compile ours for 0.3 s.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def chosen_tiers(config):
    return set(config.getoption("--tier") or set(TIERS) - {SOAK})


def pytest_ignore_collect(collection_path, config):
    """Leave the soak alone unless it is run: what it needs is not installed, and it would be skipped."""
    if collection_path.parent == ROOT / SOAK and SOAK not in chosen_tiers(config):
        return True
    return None


def pytest_collection_modifyitems(config, items):
    chosen = chosen_tiers(config)
    tiers = {item: tier_of_item(item) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if tiers[item] not in chosen])
    items[:] = [item for item in items if tiers[item] in chosen]


def tier_of_item(item):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    for mark in marks_of(item.fixturenames, engine=parameters.get("engine")):
        item.add_marker(mark)
    folder = item.path.relative_to(ROOT).parts[0]
    try:
        return tier_of(folder, {mark.name for mark in item.iter_markers()})
    except ValueError as error:
        raise pytest.UsageError(f"{item.nodeid}: {error}") from error


@pytest.fixture(scope="session")
def servers_are_expected(request):
    """Fail a test that asks for a server by its name at run time: no mark follows from that."""
    if chosen_tiers(request.config) <= WITHOUT_SERVERS:
        pytest.fail("it starts a server: mark the test (tests/tiers.py)")


@pytest.fixture(scope="session")
def moto(servers_are_expected):
    """S3 in this process."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(servers_are_expected):
    """S3 in a process of its own."""
    with seaweedfs_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(servers_are_expected):
    """S3 without conditional writes."""
    with rclone_server() as server:
        yield server


@pytest.fixture(scope="module")
def chromium(servers_are_expected):
    """A headless browser. Gone with the module: its event loop would be in the way of others."""
    with a_chromium() as browser:
        yield browser


@pytest.fixture
def prefix():
    """A prefix that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def proxy(seaweedfs):
    """A fault proxy in front of SeaweedFS; inject faults, or nothing, before use."""
    with fault_proxy(seaweedfs) as running:
        yield running
