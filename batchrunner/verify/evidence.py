"""The evidence that `verify` checks: plan, sentinels and listings of one run, read once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from batchrunner.checkpoint import RunLocation, RunPlace, Sentinel
from batchrunner.checkpoint.location import apart_from
from batchrunner.checkpoint.sentinel_index import read_sentinel
from batchrunner.driver.cutting import rest_of
from batchrunner.driver.moving import brought_here, recorded_place
from batchrunner.driver.sink_state import MANIFEST, SUCCESS
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.formats.jsonl_second_reader import numbered_lines
from batchrunner.shard import Shard, Slice
from batchrunner.storage import Entry, Storage
from batchrunner.verify.reading import Numbers
from batchrunner.verify.sink_data import other_runs, sorted_out

_READERS = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """The content of the checkpoint and the sink of a run.

    Attributes:
        run_uid: The id of the run.
        plan: The shards of the run.
        sentinels: Undamaged sentinels of active shards, by shard id; not their copies in an index.
        damaged: By shard id, why a sentinel cannot be read.
        strays: Keys of sentinels that belong to no shard of the plan.
        data: Objects that look like data in the sink and in folders below it, by name.
        files: Objects in the sink that rows may have named, by path, if parts list files; else none.
        other_runs: Folders below the sink that are the output of another run.
        dead_letters: Files of dead letters, by name.
        is_finished: Whether `_SUCCESS` existed both before and after everything else was read.
        manifest: The bytes of the manifest; None if there is none.
        places: The places of the run at the times when its documents were written.
        decisive: The recorded fields of the spec and the code that decide the output.
        trial: The option of the trial that it is, which took a part of the source; empty for a run.
        changed: By URI, how a source file differs from the one that the run read.
    """

    run_uid: str
    plan: StoredPlan
    sentinels: Mapping[int, Sentinel]
    damaged: Mapping[int, str]
    strays: Sequence[str]
    data: Mapping[str, Entry]
    other_runs: Sequence[str]
    dead_letters: Mapping[str, Entry]
    is_finished: bool
    manifest: bytes | None
    places: frozenset[RunPlace] = frozenset()
    decisive: Mapping[str, str] = field(default_factory=dict)
    trial: str = ""
    changed: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Entry] = field(default_factory=dict)

    def part(self, shard: Shard) -> str:
        """Return the name of the part of *shard*."""
        return self.plan.facts.part(shard.id)


def gather(run: RunLocation) -> Evidence:
    """Read checkpoint and sink of *run*.

    Sentinels are listed before parts: a driver that runs meanwhile publishes a part before its
    sentinel, so that no listed sentinel can lack its part.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: The run's document or its plan cannot be read.
    """
    # First: if the run completes meanwhile, the listings below may be older than its `_SUCCESS`.
    was_finished = run.sink.head(SUCCESS) is not None
    record, generations = run.checkpoint.run(), run.checkpoint.generations()
    storage = run.checkpoint.records
    if record is None:
        run.checkpoint.refuse_without_record()
    if record is None or not generations:
        raise ObjectNotFoundError(
            f"there is no run in {storage.uri}; check the path, or start one with "
            "`batchrunner run SPEC`"
        )
    was = recorded_place(record.decisive, generations, run.spec)
    here = brought_here(generations, spec=run.spec, was=was)
    plan = StoredPlan.of(here)
    keys = {f"sentinels/{plan.facts.stem(shard.id)}.json": shard.id for shard in plan.active}
    retired = {f"sentinels/{plan.facts.stem(shard.id)}.json" for shard in plan.retired}
    listed = {entry.key: entry for entry in storage.list("sentinels")}
    results = _read_sentinels(storage, [entry for key, entry in listed.items() if key in keys])
    good = {keys[key]: s for key, s in results.items() if isinstance(s, Sentinel)}
    # Of a shard that ended early, the other rows may not be planned yet: then they are still to do.
    if rest := rest_of(plan, good, spec=run.spec):
        plan = StoredPlan.of([*here, rest])
    dead_letters = {entry.key.partition("/")[2]: entry for entry in storage.list("errors")}
    in_sink = {entry.key: entry for entry in run.sink.list(recursive=True)}
    data, files = sorted_out(in_sink, beside=apart_from(run.spec), facts=plan.facts)
    return Evidence(
        run_uid=record.run_uid,
        plan=plan,
        sentinels=good,
        damaged={keys[key]: why for key, why in results.items() if isinstance(why, str)},
        strays=[key for key in listed if key not in keys and key not in retired],
        data=data,
        files=files,
        other_runs=other_runs(in_sink),
        dead_letters=dead_letters,
        is_finished=was_finished and SUCCESS in in_sink,
        manifest=_bytes_of(run.sink, in_sink[MANIFEST]) if MANIFEST in in_sink else None,
        places=frozenset({was, *(generation.place for generation in generations)}),
        decisive=record.decisive,
        trial=record.trial,
    )


def _bytes_of(sink: Storage, entry: Entry) -> bytes:
    with sink.open(
        entry
    ) as file:  # `get` refuses objects larger than a document; a manifest may be
        return file.read()


def _read_sentinels(storage: Storage, entries: Iterable[Entry]) -> dict[str, Sentinel | str]:
    """Return the sentinel of each entry, or why it cannot be read, by key."""

    def one(entry: Entry) -> tuple[str, Sentinel | str]:
        try:
            return entry.key, read_sentinel(storage, entry)
        except (DamagedOutputError, ObjectNotFoundError) as error:
            return entry.key, str(error)

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(pool.map(one, entries))


@dataclass(frozen=True, slots=True)
class SliceRead:
    """What a shard read of one slice.

    Attributes:
        piece: The slice.
        wanted: Positions of the rows that it retried; None if it read all rows of the slice.
        failed: Positions of those that failed.
    """

    piece: Slice
    wanted: Numbers | None
    failed: Numbers


class DeadLetterPositions:
    """Reads the positions of failed rows in their source file from undamaged dead letters."""

    def __init__(self, run: RunLocation, evidence: Evidence) -> None:
        self._records, self._evidence = run.checkpoint.records, evidence

    def read_by(self, shard: Shard) -> Iterator[SliceRead]:
        """Yield each slice that *shard* reads rows of, with the positions of these rows."""
        failed = self._positions(shard.id)
        wanted = None if shard.retries is None else self._positions(shard.retries)
        for number, piece in enumerate(shard.slices):
            if wanted is None or number in wanted:
                some = None if wanted is None else wanted[number]
                yield SliceRead(piece, some, failed.get(number, frozenset()))

    def _positions(self, shard_id: int) -> Mapping[int, Numbers]:
        """Return the positions of the rows of a shard that failed, by the number of their slice."""
        positions: dict[int, set[int]] = defaultdict(set)
        if name := self._evidence.sentinels[shard_id].errors:
            with self._records.open(self._evidence.dead_letters[name]) as file:
                for _, line in chain.from_iterable(numbered_lines(file, at=0)):
                    dead_letter = json.loads(line)
                    positions[dead_letter.get("slice", 0)].add(int(dead_letter["at"]))
        return {number: frozenset(some) for number, some in positions.items()}
