"""The same work as a user of Ray Data writes it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.capabilities import ArrayModel, add_length_array, burn_array
from benchmarks.store_watch import told_of_calls
from benchmarks.three_stages import BATCH, Model, finish, prepare


def jsonl(source: Path, out: Path) -> None:
    """Read, map, write, all by default."""
    import ray

    ray.data.read_json(str(source)).map_batches(add_length_array).write_json(str(out))


def parquet(source: Path, out: Path) -> None:
    """Read, map, write, all by default."""
    import ray

    ray.data.read_parquet(str(source)).map_batches(add_length_array).write_parquet(str(out))


def parquet_with_checkpoint(source: Path, out: Path) -> None:
    """The same with Ray Data's own resume, which needs a column of unique ids."""
    from ray.data import DataContext
    from ray.data.checkpoint import CheckpointConfig

    DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=f"{out}-checkpoint",
        delete_checkpoint_on_success=False,
    )
    parquet(source, out)


def jsonl_burning(source: Path, out: Path, *, seconds: float, batch_size: int) -> None:
    """A function that needs CPU."""
    import ray

    rows = ray.data.read_json(str(source))
    mapped = rows.map_batches(burn_array, batch_size=batch_size, fn_kwargs={"seconds": seconds})
    mapped.write_json(str(out))


def jsonl_with_model(source: Path, out: Path, *, load: float, call: float, actors: int) -> None:
    """A class on a pool of actors; half a CPU each, so that reading and writing have some too."""
    import ray

    rows = ray.data.read_json(str(source))
    mapped = rows.map_batches(
        ArrayModel,
        batch_size=32,
        fn_constructor_kwargs={"load": load, "call": call},
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=0.5,
    )
    mapped.write_json(str(out))


def jsonl_in_three_stages(source: Path, out: Path, *, floats: int = 0) -> dict[str, float]:
    """Prepare, model, finish: tasks for what needs a CPU, an actor for the accelerator."""
    import ray

    with told_of_calls(out) as (log, facts):
        rows = ray.data.read_json(str(source))
        prepared = rows.map_batches(prepare, batch_size=BATCH, fn_kwargs={"floats": floats})
        modelled = prepared.map_batches(
            Model,
            batch_size=BATCH,
            fn_constructor_kwargs={"log": log},
            compute=ray.data.ActorPoolStrategy(size=1),
            num_gpus=1,
        )
        modelled.map_batches(finish, batch_size=BATCH).write_json(str(out))
    return facts
