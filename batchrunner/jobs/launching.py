"""The Ray tasks of a job, and the calls kept to start them again when the registry dies.

What a job is started again with outlives the registry actor, not the cluster. It lies in the cluster's
control store, in memory: it holds credentials, and on a disk its pickle could be replaced by whatever
process may write there. A large call would fill that memory, so it lies in the journal, encrypted: the
key, used once, and the checksum are in the control store, without which the bytes say nothing. Bytes
with another checksum are never unpickled.
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
from batchrunner.jobs.controller import Launch
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.messages import SubmitMessage
from batchrunner.jobs.worker_task import JobAttempt, streaming_task, task_options

_INLINE_BYTES = 64 << 10


def launcher(submission: Submission, message: SubmitMessage) -> Launch:
    """Return what starts an attempt at *submission*, by number."""
    import ray

    options = {
        **task_options(message.request.resources),
        "max_retries": 0,  # attempts are counted in the journal, which outlives Ray's count
        "num_returns": "streaming",
        "name": f"job {message.request.name}",
        "runtime_env": dict(message.runtime_env) or None,
    }
    task = streaming_task().options(**options)
    payload = message.call.payload
    # In the object store, not in this actor's memory; and owned by it, not by the client.
    reference = payload if len(payload) < _INLINE_BYTES else ray.put(payload)

    def launch(number: int) -> Any:
        attempt = JobAttempt(
            job_id=submission.job_id,
            number=number,
            request=message.request,
            backend="ray",
            store=message.options.analytics_store,
            scope=message.options.idempotency_scope,
            import_paths=message.call.import_paths,
        )
        return task.remote(attempt, reference)

    return launch


MAX_BYTES = 16 << 20
"""Larger calls lie in the journal."""

_BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the control store holds of a job.

    Attributes:
        message: What the job is started with; without its payload when there is a key.
        key: What the payload in the journal is encrypted with; None when the message has it.
        digest: SHA-256 of the encrypted payload.
    """

    message: SubmitMessage
    key: bytes | None = dataclasses.field(default=None, repr=False)
    digest: bytes = b""


class RestartStore:
    """Keeps what the jobs of one registry are started again with. Safe in several threads."""

    def __init__(self, registry: str) -> None:
        self._namespace = f"batchrunner/{registry}"
        self._in_journal: set[str] = set()

    def put(self, job_id: str, message: SubmitMessage, *, journal: Journal) -> None:
        """Keep *message*; a large call durably.

        Logs a warning when storage fails: the job runs all the same, but is lost with its registry.
        """
        from ray.experimental.internal_kv import _internal_kv_put

        stored = _Stored(message)
        if len(message.call.payload) > MAX_BYTES:
            try:
                stored = self._with_payload_in_journal(job_id, message, journal)
            except StorageError as error:
                _log.warning(
                    "the call of job %s is not stored, so submit it again if its registry dies: %s",
                    job_id,
                    error,
                )
                return
        # Last: what it names is in the journal by now.
        _internal_kv_put(job_id, pickle.dumps(stored), namespace=self._namespace)

    def get(self, job_id: str, *, journal: Journal) -> SubmitMessage | None:
        """Return what was put; None if there is nothing, or the payload's checksum is another one."""
        from ray.experimental.internal_kv import _internal_kv_get

        data = _internal_kv_get(job_id, namespace=self._namespace)
        stored = pickle.loads(data) if data else None  # noqa: S301 - of our clients, in Ray
        if not isinstance(stored, _Stored) or stored.key is None:
            return stored.message if isinstance(stored, _Stored) else None
        self._in_journal.add(job_id)
        sealed = journal.payload(job_id)
        digest = hashlib.sha256(sealed or b"").digest()
        if sealed is None or not hmac.compare_digest(digest, stored.digest):
            _log.warning(
                "job %s cannot run again: its stored call is gone or changed; submit it again",
                job_id,
            )
            return None
        return _with_payload(stored.message, _encrypted(sealed, stored.key))

    def remove(self, job_id: str, *, journal: Journal) -> None:
        """Remove what was put. Idempotent."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(job_id, namespace=self._namespace)
        if job_id not in self._in_journal:
            return
        self._in_journal.discard(job_id)
        try:
            journal.remove_payload(job_id)
        except StorageError as error:  # it goes when the job is removed from the journal
            _log.warning("%s", error)

    def _with_payload_in_journal(
        self, job_id: str, message: SubmitMessage, journal: Journal
    ) -> _Stored:
        key = secrets.token_bytes(32)
        sealed = _encrypted(message.call.payload, key)
        journal.put_payload(job_id, sealed)
        self._in_journal.add(job_id)
        return _Stored(_with_payload(message, b""), key, hashlib.sha256(sealed).digest())


def _with_payload(message: SubmitMessage, payload: bytes) -> SubmitMessage:
    return dataclasses.replace(message, call=dataclasses.replace(message.call, payload=payload))


def _encrypted(data: bytes, key: bytes) -> bytes:
    """Return *data* XOR the keystream that SHAKE-256 makes of *key*; twice gives *data* again."""
    blocks = range(0, len(data), _BLOCK_BYTES)
    return b"".join(_encrypted_block(data[at : at + _BLOCK_BYTES], key, at=at) for at in blocks)


def _encrypted_block(block: bytes, key: bytes, *, at: int) -> bytes:
    stream = hashlib.shake_256(key + at.to_bytes(8, "big")).digest(len(block))
    mixed = int.from_bytes(block, "big") ^ int.from_bytes(stream, "big")
    return mixed.to_bytes(len(block), "big")
