"""The jobs of a scope that no controller looks after: ended, lost, or another cluster's."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from batchrunner.jobs.charter import View
from batchrunner.jobs.connection import is_connected, is_lost_client, is_ray_client
from batchrunner.jobs.entries import Cluster, Record
from batchrunner.jobs.job import JobState
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.outcome import JobStatus, Outcome

_CONNECT_SECONDS = 1.0


def cluster_here(registry: str) -> Cluster:
    """Return the cluster of this process."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    address: str = ray.get_runtime_context().gcs_address
    return Cluster((heads or [nodes[0]["NodeID"]])[0], address, registry)


def cluster_is_gone() -> bool:
    """Tell whether the cluster of this process does not listen any more.

    Through `ray://` the head's client port stands for all of it.
    """
    import ray

    if is_ray_client():
        return is_lost_client()
    if not is_connected():
        return False
    return not _is_listening(ray.get_runtime_context().gcs_address)


def is_gone(cluster: Cluster, *, here: Cluster) -> bool:
    """Tell whether nobody looks after the jobs of *cluster* any more.

    A cluster that was started anew has another head. Of any other cluster we know its address
    only: it is there as long as somebody listens. In our own it is the registry that counts.
    """
    if cluster.id == here.id:
        return cluster.registry != here.registry and not _has_actor(cluster.registry)
    return cluster.address == here.address or not _is_listening(cluster.address)


def _has_actor(registry: str) -> bool:
    import ray

    namespace, _, name = registry.partition("/")
    try:
        ray.get_actor(name, namespace=namespace)
    except ValueError:
        return False
    return True


def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


_GONE_SECONDS = 2.0


class History:
    """Settles what became of jobs. Safe in several threads.

    Attributes:
        journal: What it reads, and where it writes down that a job is lost.

    Args:
        journal: As above.
        here: This cluster and registry.
        alive: Returns the state of a job that this registry starts or looks after, else None.
    """

    def __init__(
        self, journal: Journal, *, here: Cluster, alive: Callable[[str], JobState | None]
    ) -> None:
        self.journal = journal
        self._here, self._alive = here, alive
        self._past: dict[str, View] = {}
        self._gone: dict[Cluster, tuple[float, bool]] = {}

    def settle(self, record: Record) -> View:
        """Return where a job stands. If nobody looks after it, it is lost: then it has failed."""
        submission, outcome = record.submission, record.outcome
        if outcome is None:
            state = self._alive(submission.job_id)
            if state is None and not self._is_ours_or_gone(submission.cluster):
                state = JobState(JobStatus.RUNNING)
            if state is not None:
                return View(submission, state)
            # The first word counts: it may have ended since it was read.
            outcome = self.journal.end(submission.job_id, Outcome.failed(self._loss(record)))
            if submission.max_retries:
                self.journal.drop_payload(submission.job_id)
        return View(submission, JobState.ended(outcome))

    def views(self, job_ids: list[str]) -> list[View]:
        """Return where jobs stand; those that have ended are read once."""
        past = self._past
        read = self.journal.read_many([job for job in job_ids if job not in past])
        found = {job: past[job] for job in job_ids if job in past}
        found.update({record.submission.job_id: self.settle(record) for record in read})
        self._past = {job: view for job, view in found.items() if view.state.outcome is not None}
        return list(found.values())

    def _is_ours_or_gone(self, cluster: Cluster) -> bool:
        """Tell whether only we could look after the jobs of *cluster*.

        Asked once for many jobs: it may take a second.
        """
        if cluster == self._here:
            return True
        at, gone = self._gone.get(cluster, (-_GONE_SECONDS, False))
        if time.monotonic() - at >= _GONE_SECONDS:
            gone = is_gone(cluster, here=self._here)
            self._gone[cluster] = time.monotonic(), gone
        return gone

    def _loss(self, record: Record) -> str:
        if record.submission.cluster.id == self._here.id:
            return "the registry that ran the job died before the job ended; submit it again"
        return "the cluster that ran the job is gone, and the job had not ended; submit it again"


_MOST_BETWEEN = 100


def prune_after(options: RayOptions) -> int:
    """Return how many jobs may end before the journal is pruned again: a tenth of what it keeps."""
    most = options.max_retained_terminal_jobs_per_scope
    return _MOST_BETWEEN if most is None else max(1, min(most // 10, _MOST_BETWEEN))


def prune_journal(journal: Journal, options: RayOptions) -> None:
    """Remove ended jobs that are too many or too old; the oldest first. Idempotent.

    The age is told by two machines' clocks: a retention of minutes is not meant.
    """
    most, age = options.max_retained_terminal_jobs_per_scope, options.terminal_job_retention_s
    ended = [job_id for job_id, has_ended in journal.jobs().items() if has_ended]
    if (most is None or len(ended) <= most) and age is None:
        return
    times = sorted(
        (
            (record.outcome.ended_at, record.submission.job_id)
            for record in journal.read_many(ended)
            if record.outcome
        ),
        reverse=True,
    )
    now = datetime.now(UTC)
    for rank, (ended_at, job_id) in enumerate(times):
        old = age is not None and now - datetime.fromisoformat(ended_at) > timedelta(seconds=age)
        if old or (most is not None and rank >= most):
            journal.forget(job_id)
