"""The Ray tasks of jobs, and the store of their calls, from which a new registry restarts them.

The calls outlive the registry actor, not the cluster. They are in the cluster's control store, in
memory: they hold credentials, and on a disk any process with write access could replace their pickles.
A large call would fill that memory, so it is in the journal, encrypted. Its key, which is used once,
and its checksum are in the control store; without the key, the bytes reveal nothing. Bytes with another
checksum are never unpickled.
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
    """Return a function that starts an attempt at *submission*, given the attempt's number."""
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
    # Put large calls into the object store once. This actor owns them: the client may exit.
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
"""Larger calls are kept in the journal instead of the control store."""

_BLOCK_BYTES = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The entry of a job in the control store.

    Attributes:
        message: The message that submitted the job; without its payload if there is a *key*.
        key: The key of the encrypted payload in the journal; None if *message* has the payload.
        digest: SHA-256 of the encrypted payload.
    """

    message: SubmitMessage
    key: bytes | None = dataclasses.field(default=None, repr=False)
    digest: bytes = b""


class RestartStore:
    """Stores the messages that restart the jobs of one registry. Safe in several threads."""

    def __init__(self, registry: str) -> None:
        self._namespace = f"batchrunner/{registry}"
        self._in_journal: set[str] = set()

    def put(self, job_id: str, message: SubmitMessage, *, journal: Journal) -> None:
        """Store *message* in the control store, with a large call in the journal.

        If storage fails, logs a warning: the job runs all the same, but is lost if its registry dies.
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
        # Last: the payload that the entry refers to is in the journal by now.
        _internal_kv_put(job_id, pickle.dumps(stored), namespace=self._namespace)

    def get(self, job_id: str, *, journal: Journal) -> SubmitMessage | None:
        """Return the message of a job; None if there is none, or its payload is lost or altered."""
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
        """Remove the message of a job. Idempotent."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(job_id, namespace=self._namespace)
        if job_id not in self._in_journal:
            return
        self._in_journal.discard(job_id)
        try:
            journal.remove_payload(job_id)
        except StorageError as error:  # removed later, with the job's other entries in the journal
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
    """Return *data* XOR a keystream, SHAKE-256 of *key*; applied twice, this returns *data*."""
    blocks = range(0, len(data), _BLOCK_BYTES)
    return b"".join(_encrypted_block(data[at : at + _BLOCK_BYTES], key, at=at) for at in blocks)


def _encrypted_block(block: bytes, key: bytes, *, at: int) -> bytes:
    stream = hashlib.shake_256(key + at.to_bytes(8, "big")).digest(len(block))
    mixed = int.from_bytes(block, "big") ^ int.from_bytes(stream, "big")
    return mixed.to_bytes(len(block), "big")
