"""A trial: a spec's run over a few rows, into a folder of its own, that leaves the real run alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NoReturn

from batchrunner.checkpoint import Checkpoint, RunRecord
from batchrunner.errors import DamagedOutputError, ForeignOutputError, InvalidSpecError
from batchrunner.spec import BatchSpec


def trial_of(spec: BatchSpec, *, limit: int | None = None) -> BatchSpec:
    """Return the spec of a trial of *spec*: it starts over each time, and nothing else sees it.

    Its sink, with the checkpoint in it, is `_trial-<name>` beside the sink: readers of the sink and
    of the folder above pass it over. It has no hooks, and is not recorded in the analytics store;
    capability runs are recorded in a store of its own, `_trial-<name>-runs`.

    Raises:
        InvalidSpecError: The sink has nothing beside it: it is a whole bucket, or the root.
    """
    uri = spec.sink.uri.rstrip("/")
    above, _, name = uri.rpartition("/")
    if not name or not above or above.endswith(":/"):
        raise spec.refusal(
            ("sink", "uri"),
            f"a trial writes into a folder beside the sink, and there is none beside {spec.sink.uri}; "
            "give a folder in it, such as --set sink.uri=<sink>/trial",
        )
    place = f"{above}/_trial-{name}"
    return spec.model_copy(
        update={
            "sink": spec.sink.model_copy(update={"uri": place}),
            "source": spec.source.model_copy(update={"limit": _least(limit, spec.source.limit)}),
            "checkpoint_dir": None,
            "resume": False,
            "hooks": {},
            "analytics_store": _store_of_its_own(spec, f"{place}-runs"),
        }
    )


def _least(limit: int | None, other: int | None) -> int | None:
    if limit is not None and limit < 1:
        raise InvalidSpecError("the limit of a trial is a number of rows, at least 1")
    return min((one for one in (limit, other) if one is not None), default=None)


def _store_of_its_own(spec: BatchSpec, uri: str) -> Any:
    if spec.called.mode != "run":  # a batch is recorded only if there is a store
        return None
    return {"uri": uri, "storage_options": spec.sink.storage_options}


def check_are_trials(runs: Iterable[Checkpoint]) -> None:
    """Check that a trial may remove each of *runs*: the record, written first, marks a trial.

    Raises:
        ForeignOutputError: One is a run itself, or its record is gone or damaged.
    """
    for run in runs:
        record = None
        with contextlib.suppress(DamagedOutputError):
            record = run.run()
        if record is None or not record.trial:
            what = f"the run {record.name}" if record else "a run whose record is lost"
            raise ForeignOutputError(
                f"{run.storage.uri} is the checkpoint of {what}, which is no trial, and a trial would "
                "remove its output.\nNothing was changed. Make the trial elsewhere, with another "
                "--set sink.uri=...; or move what is there away."
            )


def refuse_trial(record: RunRecord, checkpoint: Checkpoint) -> NoReturn:
    """Refuse to go on with a trial as if it were the run itself.

    Raises:
        ForeignOutputError: Always.
    """
    raise ForeignOutputError(
        f"{checkpoint.storage.uri} is the checkpoint of a trial ({record.trial}), which took only a "
        "part of the source.\nNothing was changed. Run the spec with its own sink; or make the trial "
        f"again, with {record.trial}; or --fresh removes the trial's output and runs over all of the "
        "source."
    )
