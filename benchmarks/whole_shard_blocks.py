"""The design of stages that was not taken: Ray Data's operators over blocks of whole shards.

Kept so that the figures of docs/decisions/0062 can be measured again. A shard is read into one block, and
with `target_max_block_size=None` a task never splits what it returns: so each block that reaches the commit
has whole shards. That is counted, not assumed: each row says for how many input rows of its shard it
stands (`__in`), a call that returns no row leaves a *tombstone*, and a shard whose count is not
the number of its rows (`__all`) is an error. What is missing for use: rows that fail, a driver's lease,
values that Arrow does not hold, batches that are full over shards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.store_watch import told_of_calls
from benchmarks.three_stages import BATCH, Model, finish, prepare

Columns = dict[str, Any]

_COUNTERS = ("__shard", "__all", "__in", "__tombstone")


def jsonl_in_three_stages(source: Path, out: Path, *, floats: int = 0) -> dict[str, float]:
    """Prepare, model, finish; a part and a sentinel for each file."""
    import ray

    out.mkdir(exist_ok=True)
    shards = [
        {"shard": n, "path": str(path)}
        for n, path in enumerate(sorted(source.iterdir()))
        if not _sentinel(out, n).exists()
    ]
    with told_of_calls(out) as (log, facts), _whole_blocks():
        rows = ray.data.from_items(shards, override_num_blocks=len(shards))
        rows = rows.map_batches(_read, batch_size=1)
        rows = _stage(rows, prepare, fn_kwargs={"floats": floats})
        rows = _stage(
            rows,
            Model,
            fn_constructor_kwargs={"log": log},
            compute=ray.data.ActorPoolStrategy(size=1),
            num_gpus=1,
        )
        rows = _stage(rows, finish)
        receipts = rows.map_batches(_commit, batch_size=None, fn_kwargs={"out": str(out)})
        facts["shards"] = sum(len(each["shard"]) for each in receipts.iter_batches())
    return facts


@contextmanager
def _whole_blocks() -> Iterator[None]:
    from ray.data import DataContext

    context: Any = DataContext.get_current().copy()
    context.target_max_block_size = None
    context.execution_no_progress_timeout_s = -1
    with DataContext.current(context):
        yield


def _stage(rows: Any, target: Any, *, fn_kwargs: Columns | None = None, **options: Any) -> Any:
    """Add an operator that calls *target* with the rows of whole shards, `BATCH` at a time."""
    if not isinstance(target, type):
        # By blocks: with a size, an operator that is fused with the one before waits for so many shards.
        counted = {"target": target, "kwargs": fn_kwargs or {}}
        return rows.map_batches(_in_batches, batch_size=None, fn_kwargs=counted, **options)
    model = {"model": target, "arguments": options.pop("fn_constructor_kwargs")}
    return rows.map_batches(_CountedModel, batch_size=BATCH, fn_constructor_kwargs=model, **options)


class _CountedModel:
    def __init__(self, model: Any, arguments: Columns) -> None:
        self._model = model(**arguments)

    def __call__(self, batch: Columns) -> Columns:
        return _counted(batch, target=self._model, kwargs={})


def _in_batches(block: Columns, **counted: Any) -> Columns:
    starts = range(0, _length(block), BATCH)
    cut = ({name: values[n : n + BATCH] for name, values in block.items()} for n in starts)
    return _joined([_counted(batch, **counted) for batch in cut])


def _counted(batch: Columns, *, target: Callable[..., Columns], kwargs: Columns) -> Columns:
    """Call *target* with *batch*; where it maps rows one to one, across the ends of shards."""
    import numpy as np

    live = ~batch["__tombstone"]
    before = {name: batch[name][live] for name in _COUNTERS}
    rows = len(before["__shard"])
    if not rows:
        return batch
    returned = target({k: v[live] for k, v in batch.items() if k not in _COUNTERS}, **kwargs)
    if _length(returned) == rows:
        counted = {**returned, **before}
    elif len(np.unique(before["__shard"])) > 1:  # whose rows are these? ask again, shard by shard
        parts = [
            _counted(_where(batch, batch["__shard"] == shard), target=target, kwargs=kwargs)
            for shard in np.unique(batch["__shard"])
        ]
        return _joined(parts)
    else:
        counted = _clump(returned, before)
    return _joined([counted, _where(batch, ~live)]) if not live.all() else counted


def _clump(returned: Columns, before: Columns) -> Columns:
    """Let the first of the *returned* rows, or a tombstone, stand for all rows that went in."""
    import numpy as np

    length, went_in = _length(returned), before["__in"].sum()
    rows = max(length, 1)
    counters = {
        "__shard": np.full(rows, before["__shard"][0]),
        "__all": np.full(rows, before["__all"][0]),
        "__in": np.array([went_in] + [0] * (rows - 1)),
        "__tombstone": np.full(rows, length == 0),
    }
    if length:
        return {**returned, **counters}
    return {**{name: np.array([None], dtype=object) for name in returned}, **counters}


def _length(batch: Columns) -> int:
    return len(next(iter(batch.values()), ()))


def _where(batch: Columns, chosen: Any) -> Columns:
    return {name: values[chosen] for name, values in batch.items()}


def _joined(batches: list[Columns]) -> Columns:
    import numpy as np

    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _read(batch: Columns) -> Any:
    """Return the rows of one shard, each with its counters, as one table."""
    import orjson
    import pyarrow as pa

    lines = Path(batch["path"][0]).read_bytes().splitlines()
    table = pa.Table.from_pylist([orjson.loads(line) for line in lines])
    counters = (int(batch["shard"][0]), len(lines), 1, False)
    for name, value in zip(_COUNTERS, counters, strict=True):
        table = table.append_column(name, pa.array([value] * len(lines)))
    return table


def _commit(batch: Columns, *, out: str) -> Columns:
    """Write each shard's part, then its sentinel, both if absent; return the ids of the shards."""
    import numpy as np

    shards = np.unique(batch["__shard"])
    for shard in shards:
        rows = _where(batch, batch["__shard"] == shard)
        if rows["__in"].sum() != rows["__all"][0]:
            raise RuntimeError(f"shard {shard} came in pieces")
        rows = _where(rows, ~rows["__tombstone"])
        part = Path(out) / f"part-{shard:05d}.jsonl"
        _put_if_absent(part, _lines({k: v for k, v in rows.items() if k not in _COUNTERS}))
        _put_if_absent(_sentinel(Path(out), shard), b"%d\n" % len(rows["__in"]))
    return {"shard": shards}


def _sentinel(out: Path, shard: int) -> Path:
    return out / f"_done-{shard:05d}"


def _lines(rows: Columns) -> bytes:
    import orjson

    values = [column.tolist() for column in rows.values()]
    named = (dict(zip(rows, row, strict=True)) for row in zip(*values, strict=True))
    return b"".join(orjson.dumps(row) + b"\n" for row in named)


def _put_if_absent(path: Path, data: bytes) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.write_bytes(data)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(staged, path)
    except FileExistsError:
        pass
    finally:
        staged.unlink()
