"""The hook `openlineage`: emits the events of a run by the OpenLineage standard. An example to copy.

The run of OpenLineage is the run over all its sessions: each session begins with START, and ends with
COMPLETE, FAIL (a person has to act) or ABORT (the session was stopped; the next one goes on).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from batchrunner import __version__
from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.hooks.contract import EndState, RunEnded, RunInfo, RunStarted, ShardCommitted

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset

_RUNNING_SECONDS = 60.0
_ENDS = {EndState.COMPLETE: "COMPLETE", EndState.FAILED: "FAIL", EndState.STOPPED: "ABORT"}
_PRODUCER = f"urn:batchrunner:{__version__}"
_RETRIES = {"total": 3, "backoff_factor": 0.5, "status_forcelist": [429, 500, 502, 503, 504]}


class OpenLineage:
    """Emits START, RUNNING at most once a minute, and at the end COMPLETE, FAIL or ABORT.

    The job is `namespace` and the name in the spec; the run id is the `run_uid`. Datasets are named as
    the standard names files and objects. The last event has the schema, the rows and the bytes of the
    output, the rows read if the source is one URI, and the error of a run that is not complete.
    """

    def __init__(
        self, *, url: str | None = None, api_key: str | None = None, namespace: str = "batchrunner"
    ) -> None:
        """Prepare the hook; nothing is emitted yet.

        Args:
            url: Of the server, without a path; None for what OpenLineage's own variables
                (`OPENLINEAGE_URL`) or its `openlineage.yml` say.
            api_key: Sent as a bearer token.
            namespace: Namespace of the job.

        Raises:
            CannotStartError: The package `openlineage-python` is not installed.
            InvalidSpecError: *url* is malformed.
        """
        self.check(url=url)
        if find_spec("openlineage") is None:
            raise CannotStartError(
                "the hook openlineage needs the package openlineage-python: "
                "pip install 'batchrunner[openlineage]'"
            )
        from openlineage.client import OpenLineageClient

        config = None if url is None else {"transport": _transport(url, api_key)}
        self._client = OpenLineageClient(config=config)
        self._namespace = namespace
        self._rows_out = self._bytes_out = self._parts = 0  # of this session
        self._next_running = 0.0

    @staticmethod
    def check(*, url: object = None, **_: object) -> None:
        """Check *url*.

        Raises:
            InvalidSpecError: It is malformed.
        """
        if url is not None and not str(url).startswith(("http://", "https://")):
            raise InvalidSpecError("openlineage: url must begin with http:// or https://")

    def on_run_start(self, event: RunStarted) -> None:
        self._next_running = time.monotonic() + _RUNNING_SECONDS
        self._rows_out = self._bytes_out = self._parts = 0
        self._emit("START", event)

    def on_shard_committed(self, event: ShardCommitted) -> None:
        self._rows_out += event.rows_out
        self._bytes_out += event.bytes_out
        self._parts += 1
        if time.monotonic() >= self._next_running:
            self._next_running = time.monotonic() + _RUNNING_SECONDS
            output = _output(event.run, (self._rows_out, self._bytes_out, self._parts))
            self._emit("RUNNING", event, output=output)

    def on_run_end(self, event: RunEnded) -> None:
        totals = event.rows_out, event.bytes_out, event.shards_committed
        self._emit(
            _ENDS[event.state],
            event,
            output=_output(event.run, totals, event.columns),
            error=event.error,
            rows_in=event.rows_in,
        )
        self._client.close(timeout=5)

    def _emit(
        self,
        state: str,
        about: RunStarted | ShardCommitted | RunEnded,
        *,
        output: OutputDataset | None = None,
        error: str = "",
        rows_in: int | None = None,
    ) -> None:
        from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run

        run, facets = about.run, dict[str, Any]()
        if error:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
        event = RunEvent(
            eventType=RunState[state],
            eventTime=about.at,
            run=Run(runId=str(uuid.UUID(run.run_uid)), facets=facets),
            job=Job(namespace=self._namespace, name=run.name, facets=_of_job()),
            inputs=_inputs(run, rows_in),
            outputs=[output or _output(run)],
            producer=_PRODUCER,
        )
        self._client.emit(event)


def _transport(url: str, api_key: str | None) -> dict[str, Any]:
    auth = {"auth": {"type": "api_key", "api_key": api_key}} if api_key else {}
    return {"type": "http", "url": url, "timeout": 4.0, "retry": _RETRIES, **auth}


def _of_job() -> dict[str, Any]:
    from openlineage.client.facet_v2 import job_type_job

    return {"jobType": job_type_job.JobTypeJobFacet("BATCH", "BATCHRUNNER", "JOB")}


def _inputs(run: RunInfo, rows_in: int | None) -> list[InputDataset]:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import input_statistics_input_dataset as statistics

    facets: dict[str, Any] = {}
    if rows_in is not None and len(run.sources) == 1:  # not known for each of several
        facets["inputStatistics"] = statistics.InputStatisticsInputDatasetFacet(rowCount=rows_in)
    return [InputDataset(*dataset_name(source), inputFacets=facets) for source in run.sources]


def _output(
    run: RunInfo,
    totals: tuple[int, int, int] | None = None,
    columns: Mapping[str, str] | None = None,
) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics
    from openlineage.client.facet_v2 import schema_dataset

    facets: dict[str, Any] = {}
    if columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(n, t) for n, t in columns.items()]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
    of_output: dict[str, Any] = {}
    if totals:
        of_output["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(*totals)
    return OutputDataset(*dataset_name(run.sink), facets=facets, outputFacets=of_output)


def dataset_name(uri: str) -> tuple[str, str]:
    """Return namespace and name of the dataset at *uri*, as the standard has them."""
    scheme, is_uri, rest = uri.partition("://")
    if not is_uri:
        return "file", uri
    container, _, key = rest.partition("/")
    return f"{scheme}://{container}", key or "/"
