"""Orders kept in the cluster's control store: they outlive the registry actor, not the cluster.

Never on a disk: an order holds credentials, and code that whoever may write to a disk could replace.
"""

from __future__ import annotations

import pickle

from batchrunner.jobs.charter import Order

MAX_BYTES = 16 << 20
"""Larger orders are not kept: the control store has them in memory."""


class Vault:
    """Keeps the orders of one registry."""

    def __init__(self, name: str) -> None:
        self._namespace = f"batchrunner/{name}"

    def keep(self, job_id: str, order: Order) -> None:
        """Keep *order*, unless it is large."""
        from ray.experimental.internal_kv import _internal_kv_put

        data = pickle.dumps(order)
        if len(data) <= MAX_BYTES:
            _internal_kv_put(job_id, data, namespace=self._namespace)

    def take_out(self, job_id: str) -> Order | None:
        """Return the order that was kept, or None."""
        from ray.experimental.internal_kv import _internal_kv_get

        data = _internal_kv_get(job_id, namespace=self._namespace)
        order: Order | None = pickle.loads(data) if data else None  # noqa: S301 - of our clients, in Ray
        return order

    def drop(self, job_id: str) -> None:
        """Forget an order. Idempotent."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(job_id, namespace=self._namespace)
