"""The budget of `execution.rate_limit` on Ray: one small actor, which the workers of a run find by its name.

Its name is the run's, not the session's. Workers that outlive a driver that was killed ask the budget of
the next one, so that both together keep to the limit; with no budget they make no call.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from batchrunner.spec.rates import RateLimitSpec
from batchrunner.worker.gate import NO_GATE, Gate
from batchrunner.worker.rate_budget import RENEW_SECONDS, Grant, RateBudget, Report
from batchrunner.worker.rate_gate import SharedGate
from batchrunner.worker.work import Work

_log = logging.getLogger(__name__)

_NAMESPACE = "batchrunner"
_ANSWER_SECONDS = 5.0
_NAME_SECONDS = 30.0
_QUIET_SECONDS = 2 * RENEW_SECONDS
_AT_ONCE = 1000


class Budget:
    """The actor: it answers one worker after the other."""

    def __init__(self, limit: RateLimitSpec) -> None:
        import ray

        # Ray starts it again on another node: what its predecessor granted, the workers report first.
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._budget = RateBudget(limit, quiet=_QUIET_SECONDS if is_restarted else 0.0)

    def exchange(self, report: Report) -> Grant:
        return self._budget.exchange(report)

    def holders(self) -> int:
        """Return the number of workers that have reported lately."""
        return self._budget.holders


@contextmanager
def rate_budget(work: Work) -> Iterator[None]:
    """Keep a budget inside the block for each rate limit that the spec of *work* has.

    It takes the place of that of an earlier driver of the run, which may still be dying.
    """
    spec = work.spec
    limits = [(_name(work, None), spec.execution.rate_limit)]
    limits += [(_name(work, n), stage.rate_limit) for n, stage in enumerate(spec.stages)]
    actors = [_started(name, limit) for name, limit in limits if limit]
    try:
        yield
    finally:
        for actor in actors:
            _kill(actor)


def gate_of(work: Work, *, stage: int | None = None) -> Gate:
    """Return the gate of this worker, of the *stage* with this number: it asks the budget, if there is a limit."""
    spec = work.spec
    limit = spec.execution.rate_limit if stage is None else spec.stages[stage].rate_limit
    if limit is None:
        return NO_GATE
    holder = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return SharedGate(_Asking(_name(work, stage)), limit, holder=holder)


def _name(work: Work, stage: int | None) -> str:
    return f"rate-limit-{work.run_uid}{'' if stage is None else f'-{stage}'}"


def _started(name: str, limit: RateLimitSpec) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    actor = ray.remote(Budget).options(
        name=name,
        namespace=_NAMESPACE,
        num_cpus=0,
        max_restarts=-1,
        # Beside the driver, as long as that node can: other nodes come and go.
        scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
    )
    deadline = time.monotonic() + _NAME_SECONDS
    while True:
        with suppress(ValueError):  # there is none
            _kill(ray.get_actor(name, namespace=_NAMESPACE))
        try:
            return actor.remote(limit)
        except ValueError:  # Ray frees the name a little later than the process
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _kill(actor: Any) -> None:
    import ray
    from ray.exceptions import RayError

    with suppress(RayError):  # the cluster may be gone before it
        ray.kill(actor, no_restart=True)


class _Asking:
    """Asks the budget by its name: another driver of the run may have put another one in its place."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._actor: Any = None

    def __call__(self, report: Report) -> Grant:
        """Return the answer. Raises what Ray raises."""
        import ray

        try:
            if self._actor is None:
                self._actor = ray.get_actor(self._name, namespace=_NAMESPACE)
            grant: Grant = ray.get(self._actor.exchange.remote(report), timeout=_ANSWER_SECONDS)
        except Exception:
            self._actor = None
            raise
        return grant
