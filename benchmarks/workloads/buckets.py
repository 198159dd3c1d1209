"""W7: from and to a bucket on loopback, beside a pool of two processes that uses obstore."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrunner.testing.s3_servers import S3Server, seaweedfs_server
from benchmarks.content import Content, content_of, expected_of
from benchmarks.inputs import write_source
from benchmarks.objects import downloaded, removed, uploaded
from benchmarks.places import on_disk
from benchmarks.race import Contestant, Laps, compared, run, say, with_output
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

FILES = 200
GB = 1 << 30
SHARD = 8 << 20
"""Bytes of a shard: what the default makes of 2 GB. Of less it makes shards of 1 MiB, and of each object
ten: the server then takes twice the CPU, and a run at a smaller scale shows another workload."""


@dataclass(frozen=True, slots=True)
class Half:
    """One format: as many rows as make 2 GB, the limit, and ours beside it."""

    name: str
    format: str
    rows: int
    one_object: str
    ours: Mapping[str, Any]


HALVES = (
    Half(
        "JSON lines, rows",
        format="jsonl",
        rows=10_000_000,
        one_object="jsonl_object",
        ours={"capability": "benchmarks.capabilities:add_length"},
    ),
    Half(
        "Parquet, pyarrow",
        format="parquet",
        rows=31_000_000,
        one_object="parquet_object",
        ours={
            "capability": "benchmarks.capabilities:add_length_column",
            "execution": {"batch_format": "pyarrow"},
        },
    ),
)


def measure(size: Size) -> Result:
    """Measure W7."""
    with on_disk() as place, seaweedfs_server() as server:
        done = [_half(half, server, folder=place.folder, size=size) for half in HALVES]
    standings, goals = [], []
    for half, (laps, _) in zip(HALVES, done, strict=True):
        limit, ours = (median_of(one) for one in laps.values())
        standings += [standing(name, one, limit=limit) for name, one in laps.items()]
        goals.append(Goal(f"{half.name}: at most 1.3 x the limit", ours, 1.3 * limit))
    bytes_in = " and ".join(f"{read / GB:.2f} GB" for _, read in done)
    return Result(
        workload="W7",
        title=f"{bytes_in} in {size.of(FILES, at_least=4)} objects each, from and to S3, n = len(text)",
        place="SeaweedFS on loopback, which shares the CPUs",
        standings=standings,
        goals=goals,
        notes=[
            "Shards of 8 MiB, as by default for 2 GB: at a smaller scale, too, an object is one shard."
        ],
    )


def _half(half: Half, server: S3Server, *, folder: Path, size: Size) -> tuple[Laps, int]:
    """Return the laps of the limit and of ours, and the bytes of the source."""
    local = write_source(
        folder / half.format,
        rows=size.of(half.rows),
        files=size.of(FILES, at_least=4),
        format=half.format,
    )
    try:
        read = sum(file.stat().st_size for file in local.iterdir())
        return _race(half, server, local=local, laps=size.laps), read
    finally:
        shutil.rmtree(local)


def _race(half: Half, server: S3Server, *, local: Path, laps: int) -> Laps:
    """As `race`, with the output in a bucket, from which it is taken to be looked at."""
    options, root = server.storage_options, f"s3://{server.bucket}/{half.format}"
    uploaded(local, f"{root}/in", options=options)
    expected, contestants = expected_of(local), _contestants(half, root, options)
    done: Laps = {contestant.name: [] for contestant in contestants}
    for number in range(laps):
        for contestant in contestants:
            lap = run(contestant, source=local, out=local)
            lap = with_output(lap, compared(_content_of(root, options, local), expected))
            done[contestant.name].append(lap)
            say(f"  lap {number + 1}: {contestant.name}: {lap.seconds:.2f} s, {lap.output}")
    removed(root, options=options)
    return done


def _contestants(half: Half, root: str, options: Mapping[str, Any]) -> list[Contestant]:
    by_hand = {"one_object": half.one_object, "root": root, "options": options}
    ours = {
        **half.ours,
        "source": {"uri": f"{root}/in", "storage_options": options, "shard": {"bytes": SHARD}},
        "sink": {"uri": f"{root}/out", "storage_options": options},
    }
    return [
        Contestant(
            f"{half.name}: pool of 2 processes, obstore (the limit)",
            "benchmarks.objects:pool",
            by_hand,
            on_ray=False,
        ),
        Contestant(f"{half.name}: batchrunner", "benchmarks.ours:run", {"spec": ours}),
    ]


def _content_of(root: str, options: Mapping[str, Any], local: Path) -> Content:
    """Return what is in the output, and remove that."""
    back = downloaded(f"{root}/out", local.with_name("back"), options=options)
    try:
        return content_of(back)
    finally:
        shutil.rmtree(back)
        removed(f"{root}/out", options=options)
