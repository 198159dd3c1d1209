"""What there is to look at: records, listings and places of one run, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from batchrunner.checkpoint import RunLocation, RunPlace, Sentinel
from batchrunner.checkpoint.sentinel_index import read_sentinel
from batchrunner.driver.moving import brought_here, recorded_place
from batchrunner.driver.plan import StoredPlan
from batchrunner.driver.sink_state import MANIFEST, SUCCESS
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.shard import Shard
from batchrunner.storage import Entry, Storage
from batchrunner.verify.sink_data import apart_from, data_in, other_runs

_READERS = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """What stands there.

    Attributes:
        run_uid: The run.
        plan: Its shards.
        sentinels: Whole ones of active shards, by id: the sentinels themselves, not their copies.
        damaged: What is wrong with the others, by id.
        strays: Keys of sentinels that belong to no shard of the plan.
        data: Objects in the sink that look like data, by name; also in folders below it.
        other_runs: Folders below the sink that are the output of another run.
        dead_letters: Files of rows set aside, by name.
        is_finished: `_SUCCESS` stands, before and after everything else was read.
        manifest: The manifest's bytes; None when there is none.
        places: Where the run was when its records were made.
        decisive: What decided the output, as recorded.
        changed: Source files that are not those that were read, by URI: what is known of them.
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
    changed: Mapping[str, str] = field(default_factory=dict)

    def part(self, shard: Shard) -> str:
        """Return the name of the part of *shard*."""
        return self.plan.facts.part(shard.id)


def gather(place: RunLocation) -> Evidence:
    """Read what there is.

    Sentinels are listed before parts, so that a run at work meanwhile never shows one without its
    part.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: The record of the run, or its plan, cannot be read.
    """
    was_finished = place.sink.head(SUCCESS) is not None
    record, generations = place.checkpoint.run(), place.checkpoint.generations()
    storage = place.checkpoint.records
    if record is None:
        place.checkpoint.refuse_without_record()
    if record is None or not generations:
        raise ObjectNotFoundError(f"there is no run in {storage.uri}")
    was = recorded_place(record.decisive, generations, place.spec)
    plan = StoredPlan.of(brought_here(generations, spec=place.spec, was=was))
    keys = {f"sentinels/{plan.facts.stem(shard.id)}.json": shard.id for shard in plan.active}
    retired = {f"sentinels/{plan.facts.stem(shard.id)}.json" for shard in plan.retired}
    listed = {entry.key: entry for entry in storage.list("sentinels")}
    read = _read(storage, [entry for key, entry in listed.items() if key in keys])
    dead_letters = {entry.key.partition("/")[2]: entry for entry in storage.list("errors")}
    in_sink = {entry.key: entry for entry in place.sink.list(recursive=True)}
    return Evidence(
        run_uid=record.run_uid,
        plan=plan,
        sentinels={keys[key]: s for key, s in read.items() if isinstance(s, Sentinel)},
        damaged={keys[key]: why for key, why in read.items() if isinstance(why, str)},
        strays=[key for key in listed if key not in keys and key not in retired],
        data=data_in(in_sink, beside=apart_from(place.spec)),
        other_runs=other_runs(in_sink),
        dead_letters=dead_letters,
        is_finished=was_finished and SUCCESS in in_sink,
        manifest=_whole(place.sink, in_sink[MANIFEST]) if MANIFEST in in_sink else None,
        places=frozenset({was, *(generation.place for generation in generations)}),
        decisive=record.decisive,
    )


def _whole(sink: Storage, entry: Entry) -> bytes:
    """Return all bytes of an object that may be larger than a record."""
    with sink.open(entry) as file:
        return file.read()


def _read(storage: Storage, entries: Iterable[Entry]) -> dict[str, Sentinel | str]:
    def one(entry: Entry) -> tuple[str, Sentinel | str]:
        try:
            return entry.key, read_sentinel(storage, entry)
        except (DamagedOutputError, ObjectNotFoundError) as error:
            return entry.key, str(error)

    with ThreadPoolExecutor(_READERS) as pool:
        return dict(pool.map(one, entries))
