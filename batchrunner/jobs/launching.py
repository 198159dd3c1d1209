"""From an order to the Ray tasks that carry it out.

Orders kept to be carried out again: they outlive the registry actor, not the cluster.

They lie in the cluster's control store, in memory: an order holds credentials, and code that whoever
may write to a disk could replace. A large call would fill that memory, so it lies in the journal,
sealed: the key is in the control store, used once, and without it the bytes say nothing. Bytes that
are not the sealed ones are never unpickled.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
import pickle
import secrets
from dataclasses import dataclass
from typing import Any

from batchrunner.errors import StorageError
from batchrunner.jobs.charter import Order
from batchrunner.jobs.controller import Launch
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.worker_task import Assignment, streaming_task, task_options

_INLINE_BYTES = 64 << 10


def launcher(submission: Submission, order: Order) -> Launch:
    """Return what starts an attempt at *submission*."""
    import ray

    options = {
        **task_options(order.resources),
        "max_retries": 0,  # counted by us, durably
        "num_returns": "streaming",
        "name": f"job {submission.name}",
        "runtime_env": dict(order.runtime_env) or None,
    }
    task = streaming_task().options(**options)
    # In the object store, not in this actor's memory; and owned by it, not by the client.
    payload = order.payload if len(order.payload) < _INLINE_BYTES else ray.put(order.payload)

    def launch(attempt: int) -> Any:
        assignment = Assignment(
            job_id=submission.job_id,
            attempt=attempt,
            store=order.options.analytics_store,
            scope=order.options.idempotency_scope,
            provenance={
                "user": submission.created_by.partition("@")[0],
                "backend": "ray",
                "job_id": submission.job_id,
                "submitted_at": submission.created_at,
            },
            import_paths=order.import_paths,
            versions=order.versions,
        )
        return task.remote(assignment, payload)

    return launch


MAX_BYTES = 16 << 20
"""Larger calls lie in the journal."""

_BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the control store holds of an order.

    Attributes:
        order: The order; without its payload when there is a key.
        key: What the payload is sealed with; None when the order has it.
        digest: Of the sealed payload, so that no other is taken for it.
    """

    order: Order
    key: bytes | None = dataclasses.field(default=None, repr=False)
    digest: bytes = b""


class Vault:
    """Keeps the orders of one registry. Safe in several threads."""

    def __init__(self, name: str) -> None:
        self._namespace = f"batchrunner/{name}"
        self._in_journal: set[str] = set()

    def keep(self, job_id: str, order: Order, *, journal: Journal) -> None:
        """Keep *order*, durably where it is large. If that fails, say so: the job itself goes on."""
        from ray.experimental.internal_kv import _internal_kv_put

        kept = _Kept(order)
        if len(order.payload) > MAX_BYTES:
            key = secrets.token_bytes(32)
            sealed = _sealed(order.payload, key)
            try:
                journal.keep_payload(job_id, sealed)
            except StorageError as error:
                _log.warning("job %s will not be run again if its registry dies: %s", job_id, error)
                return
            self._in_journal.add(job_id)
            bare = dataclasses.replace(order, payload=b"")
            kept = _Kept(bare, key, hashlib.sha256(sealed).digest())
        _internal_kv_put(job_id, pickle.dumps(kept), namespace=self._namespace)

    def take_out(self, job_id: str, *, journal: Journal) -> Order | None:
        """Return the order that was kept, or None."""
        from ray.experimental.internal_kv import _internal_kv_get

        data = _internal_kv_get(job_id, namespace=self._namespace)
        kept = pickle.loads(data) if data else None  # noqa: S301 - of our clients, in Ray
        if not isinstance(kept, _Kept) or kept.key is None:
            return kept.order if isinstance(kept, _Kept) else None
        self._in_journal.add(job_id)
        sealed = journal.payload(job_id)
        if sealed is None or not hmac.compare_digest(hashlib.sha256(sealed).digest(), kept.digest):
            _log.warning("job %s is not run again: what was kept of it is gone or changed", job_id)
            return None
        return dataclasses.replace(kept.order, payload=_sealed(sealed, kept.key))

    def drop(self, job_id: str, *, journal: Journal) -> None:
        """Forget an order. Idempotent."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(job_id, namespace=self._namespace)
        if job_id not in self._in_journal:
            return
        self._in_journal.discard(job_id)
        try:
            journal.drop_payload(job_id)
        except StorageError as error:  # it goes when the job is removed from the journal
            _log.warning("%s", error)


def _sealed(data: bytes, key: bytes) -> bytes:
    """Return *data* under the keystream that SHAKE-256 makes of *key*; done twice, it is undone."""
    blocks = range(0, len(data), _BLOCK_BYTES)
    return b"".join(_sealed_block(data[at : at + _BLOCK_BYTES], key, at=at) for at in blocks)


def _sealed_block(block: bytes, key: bytes, *, at: int) -> bytes:
    stream = hashlib.shake_256(key + at.to_bytes(8, "big")).digest(len(block))
    mixed = int.from_bytes(block, "big") ^ int.from_bytes(stream, "big")
    return mixed.to_bytes(len(block), "big")
