"""Gauges before, while and after Ray is imported."""

from __future__ import annotations

import sys
from types import ModuleType

from batchrunner.execute.metrics import RayGauges


def test_gauges_wait_while_another_thread_imports_ray(monkeypatch):
    """The import takes seconds, and `ray` is in `sys.modules` from its first line on."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))

    gauges = RayGauges({"a": "its description"}, tags={})
    gauges.set("a", 1.0)

    assert not gauges.is_on
