"""The first wave of Ray's tasks: no more than there is room for, until all of them have started."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

_FIRST_WAVE = "batchrunner.first_wave"


def hold_back(context: Any, *, tasks: int) -> None:
    """Make Ray Data submit only *tasks* tasks until all of them have started.

    Ray Data submits its tasks in order, but Ray does not start them in order: if there are more tasks
    than there is room for, the first may start last (seen in every second run of 14 tasks on two cores,
    Ray 2.60). Workers that wait for the first shard's schema would then hold the cores that it needs.

    A release of Ray without this kind of policy submits all at once, and nothing else changes.
    """
    with suppress(ImportError):
        from ray.data._internal.execution import backpressure_policy

        key = backpressure_policy.ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
        usual = context.get_config(key, backpressure_policy.ENABLED_BACKPRESSURE_POLICIES)
        context.set_config(key, [*usual, FirstWave])
        context.set_config(_FIRST_WAVE, tasks)


class FirstWave:
    """Limits the tasks submitted at first, with the methods of Ray's `BackpressurePolicy`."""

    name = "FirstWave"

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any) -> None:  # noqa: ARG002 - Ray's signature
        self._tasks: int = data_context.get_config(_FIRST_WAVE)

    def can_add_input(self, op: Any) -> bool:
        """Return whether *op* may submit another task. A first output shows that a task started."""
        metrics = op.metrics
        return bool(
            metrics.num_tasks_submitted < self._tasks
            or metrics.num_tasks_have_outputs >= self._tasks
        )

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:  # noqa: ARG002 - Ray's signature
        """Return None: no limit."""
        return None
