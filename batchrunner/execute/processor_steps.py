"""The steps of a processor of `ray.data.llm`: what each calls, and what each asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from batchrunner.formats.chunk import Row

_ERROR = "__inference_error__"
"""The column in which Ray's engines report that a row failed, as text; it is empty in all other rows."""

_AS_THEY_ARE = (
    "num_cpus",
    "num_gpus",
    "memory",
    "accelerator_type",
    "resources",
    "batch_size",
    "max_concurrency",
)
_OURS = {"zero_copy_batch", "udf_modifying_row_count"}
"""Options that say how Ray is to move blocks."""

_INSTEAD = {
    "runtime_env": "give it as ray.runtime_env in the spec, for all workers",
    "ray_remote_args_fn": "for an engine on several GPUs of one machine, give engine_kwargs "
    '{"distributed_executor_backend": "mp"}; over several machines, run it as a service',
}


class StepError(Exception):
    """A processor asks for what no stage can do."""


class RowFailedInEngineError(Exception):
    """The engine reports that it failed for this row, and went on with the others."""


def settings_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a stage that *options* of `map` or `map_batches` stand for.

    Raises:
        StepError: One of them has no such field.
    """
    rest = {name: value for name, value in options.items() if name not in _OURS}
    fields = {name: value for name in _AS_THEY_ARE if (value := rest.pop(name, None))}
    if fields.get("batch_size") == "auto":
        del fields["batch_size"]
    if workers := _workers(rest.pop("compute", None), rest.pop("concurrency", None)):
        fields["concurrency"] = workers
    if rest.pop("batch_format", None) not in (None, "default", "numpy"):
        raise StepError("has a step with a batch_format of its own: those of Ray take numpy")
    if asked := sorted(name for name, value in rest.items() if value):
        instead = _INSTEAD.get(asked[0], "leave it out")
        raise StepError(f"asks for {asked[0]}, which no stage has: {instead}")
    if "memory" in fields:
        fields["memory"] = int(fields["memory"])
    # A step that asks for no GPU gets none, whatever `execution` gives to all stages.
    return {"num_gpus": 0, **fields}


def _workers(compute: Any, concurrency: Any) -> Any:
    """Return how many workers a compute strategy of Ray's or the older `concurrency` stand for."""
    if compute is None:
        return tuple(concurrency[:2]) if isinstance(concurrency, tuple) else concurrency
    least, most = getattr(compute, "min_size", None), getattr(compute, "max_size", None)
    if least is None:
        return getattr(compute, "size", None)
    if most is None or most == float("inf"):
        return None
    return most if least == most else (least, most)


def row_step(function: Callable[..., Any]) -> Callable[[Row], Any]:
    """Return what a stage of mode `row` calls for `Dataset.map` of *function*.

    A row that an engine failed for, and passed on with its error, fails there.
    """

    def step(row: Row) -> Any:
        inner = next((v for v in row.values() if isinstance(v, dict) and v.get(_ERROR)), None)
        if inner is not None:
            raise RowFailedInEngineError(inner[_ERROR])
        return function(row)

    return step


def batch_step(udf: Any, arguments: Mapping[str, Any]) -> type:
    """Return the class of a stage that calls Ray's *udf*, built with *arguments*, with a list of rows.

    Raises:
        StepError: It is no class with an asynchronous generator, as those of `ray.data.llm` are.
    """
    if not (isinstance(udf, type) and inspect.isasyncgenfunction(udf.__call__)):
        raise StepError(f"has the step {udf!r}, which is none of ray.data.llm: give it as a target")

    class Step:
        def __init__(self) -> None:
            self._udf = udf(**arguments)

        async def __call__(self, rows: list[Row]) -> list[Row]:
            returned: list[Row] = []
            # Apart where their keys differ: a column would have a null for a key that a row does not have.
            for names, some in groupby(rows, key=dict.keys):
                async for piece in self._udf(_columns_of(list(some), names)):
                    returned += _rows_of(piece)
            return returned

    Step.__qualname__ = Step.__name__ = udf.__name__
    return Step


def _columns_of(rows: Sequence[Row], names: Iterable[str]) -> dict[str, list[Any]]:
    """Return *rows* as columns, with a copy of the dicts in them: Ray's code writes into these, and a batch may be tried again."""
    return {name: [_copied(row[name]) for row in rows] for name in names}


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _rows_of(columns: Mapping[str, Any]) -> list[Row]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
