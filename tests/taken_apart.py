"""What `build_processor` may give, without Ray: what it does is what it calls of its dataset."""

from __future__ import annotations

from types import SimpleNamespace

ACTORS = SimpleNamespace


class EngineUDF:
    """As `StatefulStageUDF`: takes a column of dicts, writes into them, refuses those that it has seen."""

    def __init__(self, data_column):
        self.data_column = data_column

    async def __call__(self, batch):
        rows = batch.pop(self.data_column)
        for row in rows:
            if "seen" in row:
                raise ValueError("seen is reserved")
            row["seen"] = True
        yield {self.data_column: [{"id": row["id"], "said": row["id"]} for row in rows]}


def of_an_engine():
    def processor(dataset):
        dataset = dataset.map(lambda row: {"__data": row}, num_cpus=0.25)
        dataset = dataset.map_batches_internal(
            EngineUDF,
            fn_constructor_kwargs={"data_column": "__data"},
            batch_size=64,
            zero_copy_batch=True,
            compute=ACTORS(min_size=1, max_size=4, max_tasks_in_flight_per_actor=None),
            max_concurrency=8,
            accelerator_type="A10G",
            num_gpus=1,
            runtime_env=None,
        )
        dataset = dataset.map_batches(
            EngineUDF,
            fn_constructor_kwargs={"data_column": "__data"},
            batch_size=64,
            concurrency=2,
            memory=float(1 << 30),
        )
        return dataset.map(
            lambda row: {k: v for k, v in row["__data"].items() if k != "__inference_error__"}
        )

    return processor


class EchoUDF:
    """Returns the columns it is called with."""

    async def __call__(self, batch):
        yield batch


def that_echoes():
    return lambda dataset: dataset.map_batches(EchoUDF)


def that_filters():
    return lambda dataset: dataset.filter(bool)


def of_functions():
    return lambda dataset: dataset.map_batches(lambda batch: batch)


def over_nodes():
    return _engine(ray_remote_args_fn=dict)


def in_an_environment():
    return _engine(runtime_env={"pip": ["transformers"]})


def of_half_a_worker():
    return _engine(num_gpus=1.5)


def _engine(**options):
    kwargs = {"data_column": "__data"}
    return lambda dataset: dataset.map_batches(EngineUDF, fn_constructor_kwargs=kwargs, **options)


def that_is_none():
    return {}


def that_does_nothing():
    return lambda dataset: dataset


def that_raises():
    raise OSError("no such model")
