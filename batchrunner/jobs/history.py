"""Decides which jobs of a scope have ended, are lost or run, and when the journal drops them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from batchrunner.jobs.connection import is_connected, is_lost_client, is_ray_client
from batchrunner.jobs.entries import Cluster, JournaledJob
from batchrunner.jobs.job import JobState, Selection
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.messages import JobView
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.outcome import JobStatus, Outcome
from batchrunner.jobs.request import JobRequest

_CONNECT_SECONDS = 1.0


def cluster_here(registry: str) -> Cluster:
    """Return the cluster of this process."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    heads = [node["NodeID"] for node in nodes if "node:__internal_head__" in node["Resources"]]
    address: str = ray.get_runtime_context().gcs_address
    return Cluster((heads or [nodes[0]["NodeID"]])[0], address, registry)


def cluster_is_gone() -> bool:
    """Whether the cluster of this process has stopped listening.

    With `ray://`, only the client port of the head node is tried.
    """
    import ray

    if is_ray_client():
        return is_lost_client()
    if not is_connected():
        return False
    return not _is_listening(ray.get_runtime_context().gcs_address)


def is_gone(cluster: Cluster, *, here: Cluster) -> bool:
    """Whether the jobs of *cluster* are lost: no process is left that could end them.

    In this process's cluster, they are lost if their registry actor is gone. If another cluster
    listens at our address, it was started anew, and the jobs of its predecessor are lost. Any other
    cluster is there as long as its address listens.
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
IN_PROCESS = "in-process"
"""`Cluster.registry` of jobs that run in a thread of a process."""


class History:
    """Decides whether a job ended or is lost, and which holds a run. Safe in several threads.

    Attributes:
        journal: The journal that it reads, and in which it records that a job is lost.

    Args:
        journal: The same.
        here: The cluster and registry of this process.
        alive: Returns the state of a job that this process starts or runs; None for other jobs.
    """

    def __init__(
        self, journal: Journal, *, here: Cluster, alive: Callable[[str], JobState | None]
    ) -> None:
        self.journal = journal
        self._here, self._alive = here, alive
        self._ended: dict[str, JobView] = {}
        self._gone: dict[Cluster, tuple[float, bool]] = {}

    def settle(self, job: JournaledJob) -> JobView:
        """Return *job* with its state. If no process can end it, record durably that it failed."""
        submission, outcome = job.submission, job.outcome
        if outcome is None:
            state = self._alive(submission.job_id)
            if state is None and not self._is_ours_or_gone(submission.cluster):
                state = JobState(JobStatus.RUNNING)
            if state is not None:
                return JobView(submission, state)
            # `end` returns the first outcome: the job may have ended since it was read.
            outcome = self.journal.end(submission.job_id, Outcome.failed(self._loss(job)))
            if submission.request.max_retries:
                self.journal.remove_payload(submission.job_id)
        return JobView(submission, JobState.ended(outcome))

    def holder(self, request: JobRequest) -> tuple[JobView | None, int]:
        """Return the job that holds the run of *request*, if any, and the next free number.

        A pending, running or completed job holds its run. A failed or cancelled one does not, except
        against its own request, which the client then sent twice.
        """
        latest = self.journal.latest(request.key)
        if latest is None:
            return None, 1
        view = self.settle(latest)
        sent_twice = latest.submission.request.nonce == request.nonce
        # A failed run is free at once: the way to retry it is to submit it again.
        released = view.state.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        return (view if sent_twice or not released else None), latest.submission.number + 1

    def listing(self, live: Mapping[str, JobView], selection: Selection) -> list[JobView]:
        """Return the scope's jobs, newest first.

        Args:
            live: The jobs that this process holds in memory. A job that has ended is listed only as
                long as it is in the journal.
            selection: Which jobs to return.
        """
        job_ids = self.journal.jobs()
        held = {job: v for job, v in live.items() if job in job_ids or v.state.outcome is None}
        views = [*held.values(), *self._views([job for job in job_ids if job not in held])]
        views.sort(key=lambda view: (view.created_at, view.submission.job_id), reverse=True)
        return list(selection.of(views, status=lambda view: view.state.status))

    def _views(self, job_ids: list[str]) -> list[JobView]:
        # A job that has ended never changes, so it is read only once: a listing may have thousands.
        ended = self._ended
        read = self.journal.read_many([job for job in job_ids if job not in ended])
        views = {job: ended[job] for job in job_ids if job in ended}
        views.update({job.submission.job_id: self.settle(job) for job in read})
        self._ended = {job: view for job, view in views.items() if view.state.outcome is not None}
        return list(views.values())

    def _is_ours_or_gone(self, cluster: Cluster) -> bool:
        """Whether *cluster* is that of this process, or is gone with its jobs."""
        if cluster == self._here:
            return True
        at, gone = self._gone.get(cluster, (-_GONE_SECONDS, False))
        if time.monotonic() - at >= _GONE_SECONDS:  # once for many jobs: it may take a second
            gone = is_gone(cluster, here=self._here)
            self._gone[cluster] = time.monotonic(), gone
        return gone

    def _loss(self, job: JournaledJob) -> str:
        cluster = job.submission.cluster
        if cluster.id == self._here.id:
            return "the registry that ran the job died before the job ended; submit it again"
        what = "process" if cluster.registry == IN_PROCESS else "cluster"
        return f"the {what} that ran the job is gone, and the job had not ended; submit it again"


_MOST_BETWEEN = 100


def prune_after(options: RayOptions) -> int:
    """Return after how many ended jobs to prune: a tenth of what the journal keeps, at most 100."""
    most = options.max_retained_terminal_jobs_per_scope
    return _MOST_BETWEEN if most is None else max(1, min(most // 10, _MOST_BETWEEN))


def prune_journal(journal: Journal, options: RayOptions) -> None:
    """Remove jobs that ended too long ago, and the oldest if too many have ended. Idempotent.

    An age depends on the clocks of two machines, so a retention of minutes is unreliable.
    """
    most, age = options.max_retained_terminal_jobs_per_scope, options.terminal_job_retention_s
    ended = [job_id for job_id, has_ended in journal.jobs().items() if has_ended]
    if (most is None or len(ended) <= most) and age is None:
        return
    times = sorted(
        (
            (job.outcome.ended_at, job.submission.job_id)
            for job in journal.read_many(ended)
            if job.outcome
        ),
        reverse=True,
    )
    now = datetime.now(UTC)
    for rank, (ended_at, job_id) in enumerate(times):
        old = age is not None and now - datetime.fromisoformat(ended_at) > timedelta(seconds=age)
        if old or (most is not None and rank >= most):
            journal.remove(job_id)
