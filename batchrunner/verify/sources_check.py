"""Checks the file that says which slices are in which part against the plan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.checkpoint.plan_table import content_hash
from batchrunner.driver.moving import former_uris, place_of
from batchrunner.driver.sink_state import SOURCES
from batchrunner.verify.evidence import Evidence

_AT_ONCE = 1 << 14


class SourcesError(ValueError):
    """The file is gone, cannot be read, or is not what the plan says."""


def sources_in(run: RunLocation, evidence: Evidence) -> dict[str, Any]:
    """Return what a manifest must say of the file of sources, which is as the plan says.

    Raises:
        SourcesError: It is not.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    entry = run.sink.head(SOURCES)
    if entry is None:
        raise SourcesError("it is gone; run again, which writes it anew")
    try:
        with run.sink.open(entry) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read(use_threads=False)
        table = table.select(["part", "source", "slicing", "start", "stop", "skip", "take"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise SourcesError(f"it cannot be read: {error}") from error
    for ours, theirs in zip_longest(_planned(evidence), _rows(table)):
        if ours != theirs and not _has_moved(ours, theirs, run, evidence):
            what = theirs[0] if ours is None and theirs else ours[0] if ours else ""
            raise SourcesError(f"its rows of {what} are not what the plan says; run again")
    return {"file": SOURCES, "rows": len(table), "xxh3": content_hash(table)}


def _planned(evidence: Evidence) -> Iterator[tuple[Any, ...]]:
    for shard in evidence.plan.active:
        part = evidence.part(shard)
        for p in shard.slices:
            yield part, p.uri, str(p.slicing), p.start, p.stop, p.skip, p.take


def _rows(table: Any) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(table), _AT_ONCE):
        columns = [column.to_pylist() for column in table.slice(start, _AT_ONCE).columns]
        yield from zip(*columns, strict=True)


def _has_moved(ours: Any, theirs: Any, run: RunLocation, evidence: Evidence) -> bool:
    """Return whether only the place of the run is another: moving a run keeps its files."""
    if ours is None or theirs is None or (ours[0], *ours[2:]) != (theirs[0], *theirs[2:]):
        return False
    return theirs[1] in former_uris(ours[1], evidence.places, here=place_of(run.spec))
