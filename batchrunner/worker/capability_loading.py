"""Imports and builds the capability, and compares its code with the code that the driver saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import Any

from batchrunner.capability import Code, load_target
from batchrunner.capability.module_snapshot import (
    ModuleSnapshot,
    snapshots_as_imported,
    snapshots_from_files,
)
from batchrunner.errors import CapabilityImportError, describe
from batchrunner.formats.contract import Format, RowFormat, TableFormat
from batchrunner.spec import BatchSpec, CapabilitySpec, StageSpec
from batchrunner.spec.fingerprint import differences, fields_of_code
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import contained, place_in_code
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.calling import Caller, Edges, Ready
from batchrunner.worker.gate import NO_GATE
from batchrunner.worker.isolated_rows import IsolatedFunction
from batchrunner.worker.kept_answers import KeptAnswers
from batchrunner.worker.metering import Admission, MeteredGate
from batchrunner.worker.returned import to_bytes, to_table
from batchrunner.worker.row_attempts import RowRules
from batchrunner.worker.row_caller import RowCaller
from batchrunner.worker.row_calls import RowCalls
from batchrunner.worker.row_results import is_async
from batchrunner.worker.schema import SinkSchema
from batchrunner.worker.stage_pool import Pools
from batchrunner.worker.staged_caller import StagedCaller
from batchrunner.worker.stopping import Grace
from batchrunner.worker.waiting import Waits
from batchrunner.worker.work import Work

DirectCaller = Caller | RowCaller | StagedCaller


def direct_caller(
    work: Work,
    schema: SinkSchema,
    *,
    input_types: Callable[[Any], InputTypes] = attrgetter("input_types"),
    meter: MeteredGate | None = None,
    pools: Pools | None = None,
) -> DirectCaller:
    """Load and build the capability of *work*; return a caller that calls it in this process.

    If *schema* is declared, the output gets its types. Columns that the capability passes on keep
    the types that *input_types* returns for the batch. The workers of stages are made by *pools*, or
    are threads of this process. Each call passes *meter*; without one, no gate.

    Raises:
        CapabilityImportError: The capability cannot be imported or built, or its code changed since
            the driver read it.
    """
    work.prepare()
    spec = work.spec.called
    if spec.stages:
        return _staged_caller(work, edges_of(work, schema, input_types), meter, pools)
    capability = loaded_capability(work)
    meter = meter or MeteredGate.of(work.spec, NO_GATE)
    waits = _waits(work)
    edges = edges_of(work, schema, input_types)
    if spec.mode != "row":
        admission = Admission(meter, waits)
        return Caller(capability, spec, work.spec.execution, edges=edges, admission=admission)
    rules = _rules(work.spec)
    calls = RowCalls(capability, spec.fn_kwargs, rules=rules, meter=meter, waits=waits)
    kept = KeptAnswers(work.journal())
    return RowCaller(calls, kept=kept, edges=edges, ahead=rules.max_concurrency)


def loaded_capability(work: Work) -> Any:
    """Import and build the capability of *work*, which has no stages.

    Raises:
        CapabilityImportError: As `direct_caller`.
    """
    work.prepare()
    spec = work.spec.called
    capability = build(work.capability or load_target(spec.own_targets[0]), spec)
    if spec.mode == "run":
        from batchrunner.worker.capability_runs import CapabilityRuns

        store = work.spec.analytics_store.uri if work.spec.analytics_store else ""
        capability = CapabilityRuns(capability, inputs=spec.inputs, store=store)
    check_code(work)  # after the import: a file might change between an earlier check and it
    if work.spec.errors.row_timeout is not None and not is_async(capability):
        raise CapabilityImportError(
            "errors.row_timeout: only a call of an `async def` capability can be cancelled; give the client "
            "that it calls a time limit, or set errors.batch_timeout"
        )
    return capability


def isolated_row_caller(
    work: Work, function: IsolatedFunction, *, edges: Edges, meter: MeteredGate, kept: KeptAnswers
) -> RowCaller:
    """Return a caller for the rows of *work* that calls *function*; its answers are in *kept*."""
    # The function has the limits: where it starts a process for a call, that takes no time of the call.
    errors = work.spec.errors.model_copy(update={"row_timeout": None})
    rules = replace(_rules(work.spec), errors=errors)
    calls = RowCalls(function, {}, rules=rules, meter=meter, waits=_waits(work))
    calls.make_at(function)
    return RowCaller(calls, kept=kept, edges=edges, ahead=work.spec.execution.max_concurrency)


def edges_of(work: Work, schema: SinkSchema, input_types: Callable[[Any], InputTypes]) -> Edges:
    """Return how rows of *work* are converted; into the types of *schema*, if that is declared."""
    return Edges(_conversion(work.facts.part_format, schema), input_types)


def _waits(work: Work) -> Waits:
    return Waits(Grace(work.spec.execution.grace_period).drain)


def _rules(spec: BatchSpec) -> RowRules:
    return RowRules(
        spec.errors,
        spec.execution.max_concurrency,
        spec.called.one_to_one,
    )


def _staged_caller(
    work: Work, edges: Edges, meter: MeteredGate | None, pools: Pools | None
) -> StagedCaller:
    from batchrunner.worker.thread_pools import ThreadPools  # which loads capabilities itself

    return StagedCaller(work.spec, pools or ThreadPools(work, meter), edges=edges)


def _conversion(part_format: Format, schema: SinkSchema) -> Ready:
    if isinstance(part_format, RowFormat):
        return partial(to_bytes, encode=part_format.encode, encode_table=part_format.encode_table)
    to_table([{"loads": 1}], InputTypes())  # the first table loads pandas: now, outside of any call
    return partial(_to_sink_table, schema, part_format)


def _to_sink_table(
    schema: SinkSchema, part_format: Format, returned: Any, input_types: InputTypes
) -> tuple[Any, int]:
    table, rows = to_table(returned, input_types, lenient=schema.declared is not None)
    table = schema.fitted(table)
    if isinstance(part_format, TableFormat):
        part_format.check(table)
    return table, rows


def build(capability: Any, spec: CapabilitySpec | StageSpec, *, where: str = "capability") -> Any:
    """Return *capability*, or an instance of it if it is a class. Called once per worker.

    *where* is the path of *spec*, for messages.

    Raises:
        CapabilityImportError: The constructor raised, or the spec has arguments for one and the
            capability is no class.
    """
    if not isinstance(capability, type):
        if spec.fn_constructor_kwargs:
            raise CapabilityImportError(
                f"{where}.fn_constructor_kwargs: only a class takes these, and {capability!r} is none; "
                "use fn_kwargs, which are passed to each call"
            )
        return capability
    try:
        return contained(partial(capability, **spec.fn_constructor_kwargs))
    except CapabilityImportError:  # one of ours says what it lacks
        raise
    except Exception as error:  # the user's constructor may raise anything
        name = f"{capability.__module__}.{capability.__qualname__}"
        place = f" (at {at})" if (at := place_in_code(error)) else ""
        why = scrubbed(describe(error))
        raise CapabilityImportError(f"{name} cannot be built: {why}{place}") from error


_checked_sessions: set[str] = set()


def check_code(work: Work) -> None:
    """Check that the modules of the capability, just imported, are those that the driver saw.

    Checks once per session in each process: a module that is imported does not change with its
    file.

    Raises:
        CapabilityImportError: A module has changed since the driver read it, or since this process
            imported it for an earlier run.
    """
    if work.session in _checked_sessions:
        return
    now = snapshots_from_files(work.code)
    if lines := _changes(work.code, now):
        raise CapabilityImportError(
            f"the code changed while the run was going on: {lines}. Nothing that the other code "
            "made was committed; run the same line again: it lists the ways out"
        )
    if lines := _changes(snapshots_as_imported(now), now):
        raise CapabilityImportError(
            f"the code changed after this process had imported it: {lines}. Run it in a new "
            "process (in a notebook, restart the kernel)"
        )
    _checked_sessions.add(work.session)


def _changes(before: Mapping[str, ModuleSnapshot], now: Mapping[str, ModuleSnapshot]) -> str:
    """Return how the modules in *now* differ from those in *before*, as text; empty for none."""
    old = {place: before[place].definitions for place in now}
    new = {place: module.definitions for place, module in now.items()}
    return "; ".join(differences(fields_of_code(Code(old)), fields_of_code(Code(new))))
