"""Runs a batch from start to end: survey, lease, open, dispatch, finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from batchrunner.capability.module_snapshot import snapshots_of
from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.location import checkpoint_storage
from batchrunner.checkpoint.marks import marks_left
from batchrunner.checkpoint.totals import Usage
from batchrunner.driver.definition import RunDefinition
from batchrunner.driver.dispatch import Dispatcher
from batchrunner.driver.engine import Engine
from batchrunner.driver.finishing import declare_success, is_declared
from batchrunner.driver.growing import GrowingPlan
from batchrunner.driver.growth import Retry
from batchrunner.driver.hooks import HookCalls, hooks_of
from batchrunner.driver.opening import Opened, open_run
from batchrunner.driver.packages import keep_versions
from batchrunner.driver.progress import Display, FromStart, Phase, Progress
from batchrunner.driver.recording import is_recorded, record_batch
from batchrunner.driver.report import BatchReport, report_of
from batchrunner.driver.report_text import heading
from batchrunner.driver.run import Run
from batchrunner.driver.run_setting import RunSetting
from batchrunner.driver.sample import Sample
from batchrunner.driver.session import Session, Stop, open_session
from batchrunner.driver.shard_outcomes import ShardOutcomes
from batchrunner.driver.stage_objects import with_stages_of
from batchrunner.driver.survey import Survey, take_survey
from batchrunner.driver.tracker import Tracker
from batchrunner.driver.trial import trial_of
from batchrunner.errors import DamagedOutputError, InvalidSpecError, StorageError
from batchrunner.execute.local import run_locally
from batchrunner.execute.on_ray import run_on_ray
from batchrunner.execute.payload import import_paths
from batchrunner.formats.registry import registered
from batchrunner.hooks.registry import check_hook
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.spec.fingerprint import fingerprint
from batchrunner.views.dead_letters import most_frequent
from batchrunner.views.displays import display_of, say_end
from batchrunner.views.event_logs import event_log
from batchrunner.views.metrics import MetricsDisplay
from batchrunner.views.report_data import RunReport, run_report
from batchrunner.views.spending import spent_before
from batchrunner.views.stage_times import stages_of_run
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase
from batchrunner.worker.stage_clock import StageClock, summed
from batchrunner.worker.work import Work

_log = logging.getLogger(__name__)


class BatchRunner:
    """Runs one spec: every row goes through the capability, and into the output exactly once.

    Execution is at least once (a shard may be computed again after a crash); committed output is
    exactly once. Killing this process, a worker or a node at any instant loses at most the shards
    in flight; running the same spec again continues with the shards that are not committed.
    """

    def __init__(
        self, spec: BatchSpec, *, capability: Any = None, hooks: Sequence[object] = ()
    ) -> None:
        """Prepare to run *spec*.

        Args:
            spec: The spec to run.
            capability: The function or class itself, in place of `spec.capability.target`; or a list of
                them, which are stages.
            hooks: Objects to call about what happens, beside those that *spec* names: each has some
                of the methods of `batchrunner.hooks.Hook`.

        Raises:
            InvalidSpecError: There is no capability, neither in *spec* nor as *capability*; or one
                of *hooks* has no method of a hook; or *spec* has other stages than *capability*.
        """
        if capability is None and spec.capability is None:
            raise InvalidSpecError(
                "there is no capability: give capability.target in the spec, or "
                "pass capability= in Python"
            )
        for hook in hooks:
            check_hook(type(hook).__name__, hook)
        spec = with_stages_of(spec, capability)
        self.spec, self._capability, self._hooks = spec, capability, tuple(hooks)
        self._sample: Sample | None = None
        # The command line's spec and folder, for reports: no decision depends on them.
        self.started_with: Mapping[str, str] = {}
        self._trial = ""
        spec.remember_secrets()

    def plan(self, *, accept_changes: bool = False) -> Survey:
        """Return what `run` would do and why. Starts nothing, writes nothing.

        Raises:
            BatchRunnerError: What `run` would raise before it starts.
        """
        return take_survey(
            self._run(), accept_changes=accept_changes, starts_over=not self.spec.resume
        )

    def trial(self, *, limit: int | None = None, sample: float | str | None = None) -> BatchRunner:
        """Return a runner of a trial: this spec over a few rows, which leaves its real run alone.

        A trial writes into `_trial-<name>` beside the sink, starts over each time, calls no hooks and
        is not recorded in the analytics store.

        Args:
            limit: Take the first rows of the source, at most this many.
            sample: Take rows from all over the source, the same ones each time, and read little to
                find them: a number of rows, or about a share of its bytes such as 0.01 or "1%".

        Raises:
            InvalidSpecError: The sink has no place beside it, or *limit* and *sample* are not one
                amount.
        """
        if (limit is None) == (sample is None):
            raise InvalidSpecError("a trial needs a limit or a sample, one of them")
        runner = BatchRunner(trial_of(self.spec, limit=limit), capability=self._capability)
        runner._sample = None if sample is None else Sample.of(sample)
        runner._trial = f"--limit {limit}" if sample is None else f"--sample {sample}"
        return runner

    def run(
        self,
        *,
        fresh: bool = False,
        accept_changes: bool = False,
        stop: Stop | None = None,
        progress: Display | str | None = "auto",
    ) -> BatchReport:
        """Run the shards that are not committed yet, and return a report.

        Args:
            fresh: Remove the run's output and start over.
            accept_changes: Go on although the spec, the code or the source changed.
            stop: Requests an early end; by default, after `execution.max_runtime`.
            progress: How to show progress, on stderr: `auto` is the live view on a terminal, one line
                that is updated in a notebook, and plain lines elsewhere; the others are `live`, `plain`,
                `json` and `off`, as is None. Or an object that shows it, whose `close` is called last.

        Raises:
            InvalidSpecError: The source cannot be read as the spec says. Nothing was started.
            CannotStartError: The capability, a hook, Ray or the storage cannot be used.
            RunRefusedError: Going on might lose or mix rows. Nothing was touched.
            StorageError: Source, sink or checkpoint cannot be reached.
        """
        with closing(display_of(progress)) as display:
            report = self._survey_and_run(
                starts_over=fresh or not self.spec.resume,
                accept_changes=accept_changes,
                stop=stop,
                display=display,
            )
        say_end(display, heading(report))
        return report

    def retry(
        self,
        *,
        rows: bool = False,
        mended: bool = True,
        accept_changes: bool = False,
        stop: Stop | None = None,
        progress: Display | str | None = "auto",
    ) -> BatchReport:
        """Run the quarantined shards again, and all others that are not committed yet.

        Changed code counts as a fix: it is accepted, and recorded as one. Published parts stay as they
        are.

        Args:
            rows: Also retry the dead letters: they become new shards.
            mended: Whether changed code is a fix. If not, it is refused, as by `run`.
            accept_changes: Go on although the spec or the source changed.
            stop: As for `run`.
            progress: As for `run`.

        Raises:
            BatchRunnerError: As `run` does.
            InvalidSpecError: This is the runner of a `trial`, which starts over each time.
        """
        if self._trial:
            raise InvalidSpecError("a trial is not retried, it starts over each time: call run")
        with closing(display_of(progress)) as display:
            report = self._survey_and_run(
                retry=Retry(rows=rows, mended=mended),
                accept_changes=accept_changes,
                stop=stop,
                display=display,
            )
        say_end(display, heading(report))
        return report

    def report(self) -> RunReport:
        """Return the report of the run, from its checkpoint alone: at any time, also while it runs.

        Its `to_html` is one page for people, its `to_dict` the values for programs.

        Raises:
            ObjectNotFoundError: There is no run yet.
            StorageError: The checkpoint cannot be read.
        """
        return run_report(Checkpoint.current(checkpoint_storage(self.spec)))

    def decisive_fields(self) -> dict[str, str]:
        """Return all fields that decide the output, the code included; secrets only as digests."""
        return RunDefinition(self.spec, self._capability).decisive

    def _survey_and_run(
        self,
        *,
        starts_over: bool = False,
        retry: Retry | None = None,
        accept_changes: bool,
        stop: Stop | None,
        display: Display,
    ) -> BatchReport:
        stop, display = stop or Stop.of(self.spec), FromStart(display)
        display.show(Progress.before_the_survey())
        run = self._run()
        take = partial(
            take_survey, accept_changes=accept_changes, retry=retry, starts_over=starts_over
        )
        # First without the lease: a run that is refused touches nothing, and one that is done,
        # which schedulers often start again, takes no lease and writes nothing.
        survey = take(run)
        if _is_done(run, survey, retry):
            _warn(survey)
            display.show(Progress.at_the_end(survey.plan.active, survey.output.committed))
            report = report_of(run, survey)
        elif stop.is_from_outside:
            report = replace(report_of(run, survey), stopped=stop.reason)
        else:
            run.check_can_start(starts_over=survey.starts_over)
            report = self._run_under_lease(run, take, retry, stop=stop, display=display)
        return replace(report, seconds=time.monotonic() - display.began)

    def _run_under_lease(
        self,
        run: Run,
        take: Callable[[Run], Survey],
        retry: Retry | None,
        *,
        stop: Stop,
        display: Display,
    ) -> BatchReport:
        # Hooks around the session: they may hang, and the lease must not wait for them.
        hooks = HookCalls(hooks_of(self.spec, self._hooks), stop=stop)
        opening = open_session(run.checkpoint, stop=stop, started_with=self.started_with)
        with hooks, opening as session:
            # Survey again, under the lease: another driver may have finished or started over since
            # the first survey. From here on only this driver changes the run. The source is listed
            # again, too: else a file that the other driver planned would seem to have vanished.
            session.snapshot = lambda: {"phase": Phase.SURVEYING}
            run = replace(run, checkpoint=run.checkpoint.reopened())
            if retry:
                run.checkpoint.release(check=session.check)
            survey = take(run)
            opened = _open(run, survey, session)
            hooks.begin(opened, survey, session)
            display = _with_metrics(display, opened, session)
            plan = GrowingPlan(opened.run, survey, session)
            outcomes, progress = self._dispatch(opened, plan, session, display)
            report = _finish(opened, plan.survey, outcomes, session, progress=progress)
            hooks.end(report)
            return report

    def _run(self) -> Run:
        run = Run.of(
            self.spec, handed_over=self._capability, sample=self._sample, trial=self._trial
        )
        run.definition.warn_of_opaque()
        return run

    def _dispatch(
        self, opened: Opened, plan: GrowingPlan, session: Session, display: Display
    ) -> tuple[ShardOutcomes, Progress]:
        work, run = self._work(opened, plan.survey, session), opened.run
        rest = plan.grow({}, opened.committed)  # of shards that were adopted since the survey
        pending = (*opened.pending, *(rest.shards if rest else ()))
        shards = plan.survey.plan.active
        begun = Progress.of(shards, opened.committed, pending=pending)
        tracker = Tracker(begun, shards, self.spec.errors)
        tracker.setting = RunSetting.of_spec(self.spec, name=work.stage_name)
        if self.spec.execution.engine == "local":  # there is no Ray to wait for
            tracker.hear(Heartbeat("", WorkerPhase.LOADING))
        tracker.spent_before = _spent_before(opened, begun)
        session.snapshot = lambda: tracker.progress().to_dict()
        dispatcher = Dispatcher(work, session, tracker, display, plan=plan)
        with tracker.logged(session):
            if pending:
                display.show(tracker.progress())
                with run.definition.at_work() as imported:
                    dispatcher.go(pending, _engine(run, session.stop, imported=imported))
        finishing = tracker.finishing(failed=len(dispatcher.outcomes.failures))
        session.snapshot = finishing.to_dict
        display.show(finishing)
        return dispatcher.outcomes, finishing

    def _work(self, opened: Opened, survey: Survey, session: Session) -> Work:
        return Work(
            spec=self.spec,
            run_uid=opened.run_uid,
            session=session.id,
            facts=survey.plan.facts,
            weight=sum(shard.weight for shard in survey.plan.active),
            capability=self._capability,
            import_paths=import_paths(),
            first=opened.first,
            incarnation=opened.run.checkpoint.incarnation,
            epoch=session.epoch,
            formats=registered(),
            code=snapshots_of(opened.run.definition.code.modules),
            isolated=_killed_its_trial(opened.run),
            definition=fingerprint(opened.run.decisive),
        )


def _killed_its_trial(run: Run) -> bool:
    """Return whether the trial before this one died on the local engine, perhaps of a row.

    A trial starts over, and would die of that row each time.
    """
    if not run.trial or run.spec.execution.engine != "local":
        return False
    return any(marks_left(ended.records) for ended in run.checkpoint.ended())


def _is_done(run: Run, survey: Survey, retry: Retry | None) -> bool:
    """Return whether a session would change neither output nor analytics store."""
    return (
        survey.nothing_to_do
        and not (retry and survey.quarantined)
        # An analytics store that was added to the spec, or was out of reach, gets the run now.
        and is_recorded(run, survey)
        # Last, since it reads the manifest. A session corrects what a displaced driver wrote late.
        and is_declared(run, survey)
    )


def _open(run: Run, survey: Survey, session: Session) -> Opened:
    _warn(survey)
    opened = open_run(run, survey, session)
    keep_versions(opened.run, session, is_first=survey.record is None)
    facts = {"shards": len(survey.plan.active), "pending": len(opened.pending)}
    session.log_event(
        "plan_made",
        **facts,
        **({"changed": survey.changed} if survey.changed else {}),
        run_uid=opened.run_uid,
    )
    return opened


def _engine(run: Run, stop: Stop, *, imported: Callable[[], None]) -> Engine:
    if run.spec.execution.engine == "local":
        return partial(run_locally, stop=stop)
    # Imported here, and not only in the workers: Ray runs a class in actors, a function in tasks.
    capability = run.definition.load()
    imported()
    return partial(run_on_ray, as_actors=bool(run.spec.stages) or isinstance(capability, type))


def _with_metrics(display: Display, opened: Opened, session: Session) -> Display:
    spec = opened.run.spec
    if spec.execution.engine != "ray":
        return display
    measured = MetricsDisplay(display, run=spec.name, run_uid=opened.run_uid)
    session.on_committed.append(measured.committed)
    return measured


def _finish(
    opened: Opened,
    survey: Survey,
    outcomes: ShardOutcomes,
    session: Session,
    *,
    progress: Progress,
) -> BatchReport:
    run, committed = opened.run, {**opened.committed, **outcomes.committed}
    report = report_of(run, survey, committed, run_uid=opened.run_uid)
    if report.ok:
        if run.spec.analytics_store is not None:
            # Before `_SUCCESS`: a run that readers see as complete is in the store.
            session.check()
            stages = partial(_stages_of_run, run, committed, session, progress)
            record_batch(run, survey, committed, stages=stages)
        declare_success(run, survey, committed, session)
    if not report.within_budget:
        report = _with_row_error(report, run, survey.plan.active, committed)
    report = replace(
        report,
        shards_new=len(outcomes.committed),
        shards_adopted=opened.adopted,
        failures=outcomes.failures,
        quarantined={
            **report.quarantined,
            **{shard: failure.reason for shard, failure in outcomes.to_quarantine.items()},
        },
        stopped=None if report.ok else session.stop.reason,
        stages=progress.stages,
        advice=progress.advice,
        spent=progress.spent,
        cost_left=progress.cost_left,
    )
    session.log_event(
        "session_ended",
        committed=report.shards_new,
        failed=len(report.failures),
        stopped=report.stopped,
        complete=report.ok,
        adopted=report.shards_adopted,
        usage=dict(report.usage),
        spent=dict(report.spent),
    )
    return report


def _spent_before(opened: Opened, begun: Progress) -> Usage:
    """Return what earlier sessions have spent, if anything in the run has a price, or says what it uses."""
    execution = opened.run.spec.execution
    if not (begun.usage or execution.prices or execution.max_cost):
        return {}
    checkpoint = opened.run.checkpoint
    return spent_before(checkpoint, run_uid=opened.run_uid, committed=begun.usage)


def _stages_of_run(
    run: Run, committed: Mapping[int, Sentinel], session: Session, progress: Progress
) -> Sequence[StageClock]:
    """Return what the workers of the sessions that committed the shards spent their time on."""
    earlier = sorted({sentinel.session for sentinel in committed.values()} - {session.id})
    logs = (event_log(run.checkpoint.storage, one) for one in earlier)
    return summed([*stages_of_run(logs), *progress.stages])


def _with_row_error(
    report: BatchReport, run: Run, shards: Iterable[Shard], committed: Mapping[int, Sentinel]
) -> BatchReport:
    """Add the most frequent error of rows to *report*; if it cannot be read, warn instead."""
    try:
        group = most_frequent(run.checkpoint, shards, committed)
    except (DamagedOutputError, StorageError) as error:
        _log.warning("%s", error)
        return report
    if group is None:
        return report
    return replace(report, row_error=str(group), row_traceback=group.traceback)


def _warn(survey: Survey) -> None:
    for note in survey.notes:
        _log.warning("%s", note)
