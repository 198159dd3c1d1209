"""Objects in a bucket: put there, taken out again, and mapped by hand with obstore, as fast as it goes.

Nothing in `pool` is safe: no commit, no resume, and a second writer replaces what the first one wrote.
"""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from batchrunner.storage import open_storage
from benchmarks.by_hand import PROCESSES

OneObject = Callable[[bytes], bytes]


def uploaded(folder: Path, uri: str, *, options: Mapping[str, Any]) -> None:
    """Put the files of *folder* below *uri*."""
    storage = open_storage(uri, storage_options=options)
    for file in sorted(folder.iterdir()):
        storage.put(file.name, file.read_bytes())


def downloaded(uri: str, folder: Path, *, options: Mapping[str, Any]) -> Path:
    """Put the objects right below *uri* into *folder*, and return that."""
    storage = open_storage(uri, storage_options=options)
    folder.mkdir(parents=True)
    for entry in storage.list():
        with storage.open(entry) as source, (folder / entry.key).open("wb") as target:
            target.writelines(iter(lambda: source.read(8 << 20), b""))
    return folder


def removed(uri: str, *, options: Mapping[str, Any]) -> None:
    """Remove what is below *uri*."""
    storage = open_storage(uri, storage_options=options)
    storage.delete([entry.key for entry in storage.list(recursive=True)])


def jsonl_object(data: bytes) -> bytes:
    """Line by line, with orjson."""
    out = []
    for line in io.BytesIO(data):
        row = orjson.loads(line)
        row["n"] = len(row["text"])
        out.append(orjson.dumps(row))
    return b"\n".join([*out, b""])


def parquet_object(data: bytes) -> bytes:
    """By columns: no row is ever a Python object."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    out = pa.BufferOutputStream()
    pq.write_table(table.append_column("n", pc.utf8_length(table["text"])), out)
    return bytes(out.getvalue())


ONE_OBJECT: dict[str, OneObject] = {
    function.__name__: function for function in (jsonl_object, parquet_object)
}


def pool(
    _source: Path, _out: Path, *, root: str, one_object: str, options: Mapping[str, Any]
) -> None:
    """Let two processes map all objects below `root/in` to `root/out`."""
    names = [entry.key for entry in open_storage(f"{root}/in", storage_options=options).list()]
    # Not a fork: neither client survives one.
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as workers:
        orders = [
            (f"{root}/in/{name}", f"{root}/out/{name}", one_object, options) for name in names
        ]
        workers.starmap(_map_object, orders, chunksize=1)


def _map_object(source: str, target: str, one_object: str, options: Mapping[str, Any]) -> None:
    import obstore

    (bucket, key), (_, new_key) = (
        uri.removeprefix("s3://").split("/", 1) for uri in (source, target)
    )
    store = _store(bucket, options)
    data = bytes(obstore.get(store, key).bytes())
    obstore.put(store, new_key, ONE_OBJECT[one_object](data))


_stores: dict[str, Any] = {}


def _store(bucket: str, options: Mapping[str, Any]) -> Any:
    from obstore.store import S3Store

    if bucket not in _stores:
        _stores[bucket] = S3Store(
            bucket,
            endpoint=options["endpoint_url"],
            access_key_id=options["key"],
            secret_access_key=options["secret"],
            region=options["client_kwargs"]["region_name"],
            client_options={"allow_http": True},
        )
    return _stores[bucket]
