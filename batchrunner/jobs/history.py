"""The jobs of a scope that no controller looks after: ended, lost, or another cluster's."""

from __future__ import annotations

import time
from collections.abc import Callable

from batchrunner.jobs.charter import View
from batchrunner.jobs.clusters import is_gone
from batchrunner.jobs.entries import Cluster, Record
from batchrunner.jobs.job import JobState
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.outcome import Outcome
from batchrunner.jobs.status import JobStatus

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
