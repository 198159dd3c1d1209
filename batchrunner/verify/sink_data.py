"""Which objects of a sink, and of the folders below it, a reader would take for output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint.damage import schema_from_bytes
from batchrunner.driver.sink_state import MANIFEST, SUCCESS
from batchrunner.errors import ObjectNotFoundError
from batchrunner.formats.registry import file_kind
from batchrunner.spec import BatchSpec
from batchrunner.storage import Entry, Storage

if TYPE_CHECKING:
    import pyarrow as pa


_OF_CHECKPOINTS = ("errors/", "sentinel_index/", "plan/", "quarantine/", "sentinels/", "sessions/")
"""Folders of a checkpoint that hold files which look like data."""

_PLAN = re.compile(r"(?P<root>.+/)??(?P<run>run-\d{4,}/)?plan/0000\.parquet")
"""The first plan of a run in a checkpoint: of its first one, or of one that began with `--fresh`."""

_GLOB = re.compile(r"[*?\[]")


def data_in(entries: Mapping[str, Entry], *, beside: Sequence[str]) -> dict[str, Entry]:
    """Return what looks like data, by key.

    What stands in *beside*, in a checkpoint or in the output of another run is somebody else's,
    however it looks: `--repair` must not move it.
    """
    apart = (*beside, *_checkpoints(entries), *(f"{run}/" for run in other_runs(entries)))
    return {
        key: entry for key, entry in entries.items() if _looks_like_data(key, apart=tuple(apart))
    }


def other_runs(entries: Iterable[str]) -> list[str]:
    """Return the folders below the sink that are the output of another run."""
    signs = tuple(f"/{name}" for name in (SUCCESS, MANIFEST, "_checkpoint/run.json"))
    found = {key.removesuffix(sign) for sign in signs for key in entries if key.endswith(sign)}
    return sorted(folder for folder in found if not _is_hidden(folder))


def apart_from(spec: BatchSpec) -> list[str]:
    """Return the folders below the sink that hold source, checkpoint or analytics store."""
    uris = [_folder(uri) for uri in spec.source.uris]
    uris += [spec.checkpoint_uri, *([spec.analytics_store.uri] if spec.analytics_store else [])]
    below = (_below(spec.sink.uri, uri) for uri in uris)
    return [folder for folder in below if folder]


def _looks_like_data(key: str, *, apart: tuple[str, ...]) -> bool:
    if _is_hidden(key) or f"{key}/".startswith(apart):
        return False
    name = key.rpartition("/")[2]
    return name.startswith("part-") or file_kind(name) is not None


def _is_hidden(key: str) -> bool:
    return any(segment.startswith((".", "_")) for segment in key.split("/"))


def _checkpoints(entries: Iterable[str]) -> list[str]:
    """Return folders of checkpoints, found by what they hold: a link may hide where one is."""
    plans = [match for match in map(_PLAN.fullmatch, entries) if match]
    roots = {match["root"] or "" for match in plans}
    later_runs = {f"{match['root'] or ''}{match['run']}" for match in plans if match["run"]}
    return [*later_runs, *(f"{root}{folder}" for root in roots for folder in _OF_CHECKPOINTS)]


def _folder(uri: str) -> str:
    """Return the folder that a pattern starts in; any other URI as it is."""
    pattern = _GLOB.search(uri)
    return uri[: pattern.start()].rpartition("/")[0] if pattern else uri


def _below(root: str, uri: str) -> str:
    """Return *uri* relative to *root* with a slash at its end; "" when it is not below."""
    if "://" not in root and "://" not in uri:
        root, uri = os.path.realpath(root), os.path.realpath(uri)
    root = root.rstrip("/") + "/"
    return f"{uri.removeprefix(root)}/" if uri.startswith(root) else ""


def columns_of(records: Storage, declared: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return name and type of each column, as a manifest has them; none when none is known.

    Raises:
        DamagedOutputError: The recorded schema cannot be read.
    """
    schema = _declared(declared) if declared else _recorded(records)
    fields = [] if schema is None else list(schema)
    return [{"name": field.name, "type": str(field.type)} for field in fields]


def _declared(declared: Mapping[str, Any]) -> pa.Schema:
    from batchrunner.formats.declared import as_written, declared_schema

    return as_written(declared_schema(declared))


def _recorded(records: Storage) -> pa.Schema | None:
    keys = ["schema.arrow", *(entry.key for entry in records.list("schema"))]
    try:
        return schema_from_bytes(records.get(keys[-1]), key=keys[-1])
    except ObjectNotFoundError:
        return None
