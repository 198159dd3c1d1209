"""The first tasks of a run, before all others: the first shard is among them.

Ray Data hands its tasks to Ray in order, but Ray does not begin them in order: with more of them than there is
room for, the first may begin last (seen in every second run of 14 tasks on two cores, Ray 2.60). Workers that wait
for what the first shard fixes would then hold every core that it needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

_ROOM = "batchrunner.first_wave"


def hold_back(context: Any, *, room: int) -> None:
    """Have Ray Data submit no more than *room* tasks before all of these have begun.

    A release of Ray without this kind of policy submits all at once, and nothing else changes.
    """
    with suppress(ImportError):
        from ray.data._internal.execution import backpressure_policy as ours

        key = ours.ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY
        usual = context.get_config(key, ours.ENABLED_BACKPRESSURE_POLICIES)
        context.set_config(key, [*usual, FirstWave])
        context.set_config(_ROOM, room)


class FirstWave:
    """A backpressure policy, with the methods of Ray's `BackpressurePolicy`."""

    name = "FirstWave"

    def __init__(self, data_context: Any, topology: Any, resource_manager: Any) -> None:  # noqa: ARG002 - Ray's signature
        self._room: int = data_context.get_config(_ROOM)

    def can_add_input(self, op: Any) -> bool:
        """Tell whether *op* may submit another task. The first output of each says that it has begun."""
        seen = op.metrics
        return bool(
            seen.num_tasks_submitted < self._room or seen.num_tasks_have_outputs >= self._room
        )

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:  # noqa: ARG002 - Ray's signature
        """Bound nothing."""
        return None
