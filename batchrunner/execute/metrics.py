"""Gauges on the Prometheus endpoint that each node of Ray has, where `ray[default]` is installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

_log = logging.getLogger(__name__)


class RayGauges:
    """Sets gauges that Ray exports as `ray_<name>`, in this process.

    Whatever Ray raises about them ends the gauges, not the run. Before Ray is connected, or if it is
    by `ray://`, nothing is exported.
    """

    def __init__(self, descriptions: Mapping[str, str], *, tags: Mapping[str, str]) -> None:
        """Prepare gauges with these *descriptions* by name; each value carries the *tags*."""
        self._descriptions, self._tags = descriptions, dict(tags)
        self._gauges: dict[str, Any] = {}
        self._is_broken = False

    @property
    def is_on(self) -> bool:
        """Whether this process is connected to Ray, and Ray takes gauges."""
        # Not imported for this: a local run never needs it. And another thread may be importing it
        # at this moment: it is in `sys.modules` before its functions are in it.
        is_connected = getattr(sys.modules.get("ray"), "is_initialized", None)
        return not self._is_broken and is_connected is not None and bool(is_connected())

    def set(self, name: str, value: float, **tags: str) -> None:
        """Set the gauge *name*, for its further *tags*."""
        if not self.is_on:
            return
        try:
            self._gauge(name, (*self._tags, *tags)).set(value, tags={**self._tags, **tags})
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds
            self._is_broken = True
            _log.info("there are no metrics from here on: Ray does not take them: %s", error)

    def _gauge(self, name: str, keys: tuple[str, ...]) -> Any:
        from ray.util.metrics import Gauge

        if name not in self._gauges:
            self._gauges[name] = Gauge(name, self._descriptions[name], tag_keys=keys)
        return self._gauges[name]
