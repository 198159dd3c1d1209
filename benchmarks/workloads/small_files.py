"""W3: thousands of small files, so that what a file costs is all there is; with and without fsync."""

from __future__ import annotations

from contextlib import AbstractContextManager

from benchmarks.inputs import write_source
from benchmarks.places import Place, in_memory, on_disk
from benchmarks.race import Contestant, Laps, race
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size
from benchmarks.workloads.lines import LIMIT, OURS, RAW

FILES, ROWS_PER_FILE = 5000, 100

_NOTE = """On the disk only batchrunner and the pool with fsync survive a power cut: batchrunner makes
parts, sentinels and their folders durable, the pool its files only."""

SYNCED_POOL = Contestant(
    "the pool, with an fsync per file",
    "benchmarks.by_hand:pool",
    {"one_file": "jsonl_file_synced"},
    on_ray=False,
)
BARE_TASKS = Contestant(
    "a bare Ray task per 25 files, orjson",
    "benchmarks.by_hand:bare_ray_tasks",
    {"one_file": "jsonl_file", "files_per_task": 25},
)


def measure(size: Size) -> Result:
    """Measure W3, on tmpfs and on the disk."""
    files = size.of(FILES, at_least=4)
    memory = _race([LIMIT, BARE_TASKS, OURS, RAW], in_memory(), files=files, laps=size.laps)
    disk = _race(
        [LIMIT, SYNCED_POOL, BARE_TASKS, OURS, RAW], on_disk(), files=files, laps=size.laps
    )
    limit, ours = median_of(memory[LIMIT.name]), median_of(memory[OURS.name])
    return Result(
        workload="W3",
        title=f"{files:,} files of {ROWS_PER_FILE} rows as JSON lines, n = len(text)",
        place="tmpfs, where an fsync is free; then the disk",
        standings=[
            *(standing(f"tmpfs: {name}", done, limit=limit) for name, done in memory.items()),
            *(
                standing(f"disk: {name}", done, limit=median_of(disk[LIMIT.name]))
                for name, done in disk.items()
            ),
        ],
        goals=[Goal("batchrunner, on tmpfs: at most 1.5 x the limit + 1 s", ours, 1.5 * limit + 1)],
        notes=[_NOTE],
    )


def _race(
    contestants: list[Contestant], where: AbstractContextManager[Place], *, files: int, laps: int
) -> Laps:
    with where as place:
        source = write_source(
            place.folder / "in", rows=files * ROWS_PER_FILE, files=files, format="jsonl"
        )
        return race(contestants, source=source, place=place, laps=laps)
