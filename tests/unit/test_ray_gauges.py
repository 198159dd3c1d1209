"""Gauges on Ray's endpoint: they ask Ray only once it is there."""

from __future__ import annotations

import sys
from types import ModuleType

from batchrunner.execute.metrics import RayGauges


def test_gauges_are_off_while_another_thread_imports_ray(monkeypatch):
    """The display is shown while Ray starts: a module that is half there ended each run on Ray."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))

    assert not RayGauges({}, tags={}).is_on
