"""Lets the plan of a session grow while the session runs: one more generation, stored as the first one is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from batchrunner.checkpoint import Generation, Sentinel
from batchrunner.driver.cutting import rest_of
from batchrunner.driver.damaged_files import divided
from batchrunner.driver.moving import place_of
from batchrunner.driver.run import Run
from batchrunner.driver.session import Session
from batchrunner.driver.survey import Survey
from batchrunner.worker.receipt import Failure

_log = logging.getLogger(__name__)


class GrowingPlan:
    """The plan of a session.

    Attributes:
        run: The run.
        survey: The survey of the session, with the plan as it is now.
    """

    def __init__(self, run: Run, survey: Survey, session: Session) -> None:
        self.run, self.survey, self._session = run, survey, session

    def grow(
        self, failures: Mapping[int, Failure], committed: Mapping[int, Sentinel]
    ) -> Generation | None:
        """Add what follows from how shards ended so far; return it, or None if that is nothing.

        Durable once this returns: only then may a shard of it be handed out.

        Args:
            failures: By id, why shards failed: those that name unreadable slices are divided.
            committed: By id, sentinels of this session: what is left of shards that ended early is added.

        Raises:
            LeaseHeldError: Another driver took over. No shard of the generation may be handed out.
            StorageError: The checkpoint cannot be written; the generation may be there or not.
        """
        addition = self._addition(failures, committed)
        if addition is None:
            return None
        # Before: the driver that took over has surveyed the plan without this generation.
        self._session.check()
        number = self.survey.plan.generations
        self.run.checkpoint.add_generation(addition, number=number)
        # After: a driver that takes over from here on finds the generation. One that did so in between may
        # not have: it would run the retired shards, and this driver the new ones, with the same rows.
        self._session.check()
        self.survey = self.survey.grown(addition)
        _note_divided(addition, failures, shards=len(self.survey.plan.active))
        shards, retired = len(addition.shards), len(addition.retired)
        self._session.log_event("plan_grew", generation=number, shards=shards, retired=retired)
        for call in self._session.on_grown:
            call(self.survey.plan.active)
        return addition

    def _addition(
        self, failures: Mapping[int, Failure], committed: Mapping[int, Sentinel]
    ) -> Generation | None:
        plan, spec = self.survey.plan, self.run.spec
        one = divided(plan, failures)
        other = rest_of(plan.grown(one) if one else plan, committed, spec=spec)
        if one and other:  # one generation for both: a session may end between two
            one = replace(one, shards=(*one.shards, *other.shards), ended=other.ended)
        addition = one or other
        return addition and replace(addition, place=place_of(spec))


def _note_divided(addition: Generation, failures: Mapping[int, Failure], *, shards: int) -> None:
    """Warn if *addition* divides shards: the plan promised fewer, and why is seen nowhere else."""
    bad = sum(len(failures[shard].unreadable) for shard in addition.retired if shard in failures)
    if bad:
        what = "1 file has" if bad == 1 else f"{bad:,} files have"
        whose = "a shard of its own, since it" if bad == 1 else "shards of their own, since they"
        _log.warning("%s %s cannot be read: the plan has %s shards now", what, whose, f"{shards:,}")
