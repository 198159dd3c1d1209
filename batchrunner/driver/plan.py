"""The shards of a run: the stored plan, and how new, changed and vanished files change it.

An id is used only once. The shards of a new file get the next ids. The shards of a changed file are
retired and replaced by new ones, so that a published part never changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from operator import itemgetter

from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.driver.packing import CutFile, default_pack, packed
from batchrunner.driver.sample import Sample
from batchrunner.driver.sampling import Picked, picked
from batchrunner.driver.source_files import Opener, SourceFile, opener_of, slice_of
from batchrunner.errors import InputChangedError, InvalidSpecError
from batchrunner.formats.contract import Cut, Format, Sharding
from batchrunner.formats.format_error import fault_of_cut, refused
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import DEFAULT, format_named
from batchrunner.shard import Shard, Slice
from batchrunner.spec import BatchSpec, SourceSpec

_FOOTERS_AT_ONCE = 16
_MIN_SHARD, _MAX_SHARD, _MANY_SHARDS = 1 << 20, 32 << 20, 256


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The plan that the stored generations of a run make together.

    Attributes:
        facts: How parts are named and written, as the first generation has it.
        active: Shards whose parts are output, in the order of their ids.
        retired: Shards whose parts are no longer output.
        added_later: Ids of shards that a generation after the first added.
        generations: How many generations are stored.
    """

    facts: PlanFacts
    active: tuple[Shard, ...]
    retired: tuple[Shard, ...]
    added_later: frozenset[int]
    generations: int

    @classmethod
    def of(cls, generations: Sequence[Generation]) -> StoredPlan:
        retired = {shard_id for generation in generations for shard_id in generation.retired}
        shards: list[Shard] = []
        for generation in generations:
            if generation.identities:
                shards = [_identified(shard, generation.identities) for shard in shards]
            shards += generation.shards
        later = [shard.id for generation in generations[1:] for shard in generation.shards]
        return cls(
            facts=generations[0].facts,
            active=tuple(shard for shard in shards if shard.id not in retired),
            retired=tuple(shard for shard in shards if shard.id in retired),
            added_later=frozenset(later),
            generations=len(generations),
        )

    def slices(self) -> Iterator[Slice]:
        """Yield the slices of the active shards."""
        return chain.from_iterable(shard.slices for shard in self.active)

    def identified(self, identities: Mapping[str, str]) -> StoredPlan:
        """Return the plan with new *identities*, by URI, of files whose bytes did not change."""
        active = tuple(_identified(shard, identities) for shard in self.active)
        return replace(self, active=active) if identities else self


def _identified(shard: Shard, identities: Mapping[str, str]) -> Shard:
    if not any(piece.uri in identities for piece in shard.slices):
        return shard
    slices = (
        replace(piece, identity=identities.get(piece.uri, piece.identity)) for piece in shard.slices
    )
    return Shard(shard.id, tuple(slices))


class Slicer:
    """Cuts files into slices; reads each file only once.

    Results are cached because a driver surveys twice, and a cut by rows reads the whole file.
    With a *sample*, a new plan holds that much of the source only.
    """

    def __init__(self, opener: Opener, sample: Sample | None = None) -> None:
        self._opener, self.sample = opener, sample
        self._slices: dict[tuple[SourceFile, Sharding, int | None], list[Cut]] = {}

    @classmethod
    def of(cls, spec: BatchSpec, *, sample: Sample | None = None) -> Slicer:
        """Return a slicer of the source files of *spec*."""
        return cls(opener_of(spec), sample)

    def sampled(self, files: Sequence[SourceFile], sample: Sample) -> list[Picked]:
        """Return slices of *files* that hold the *sample*."""
        return picked(files, sample, cut=self.slices, opener=self._opener)

    def slices(self, file: SourceFile, sharding: Sharding, limit: int | None) -> list[Cut]:
        """Return the slices of *file*, of at most *limit* rows in all. Safe in several threads."""
        key = file, sharding, limit
        if key not in self._slices:
            self._slices[key] = self._cut(file, sharding, limit)
        return self._slices[key]

    def _cut(self, file: SourceFile, sharding: Sharding, limit: int | None) -> list[Cut]:
        if not file.size or limit == 0:
            return []
        name = file.kind.format
        with refused(f"{file.uri} cannot be cut", name):
            slices = file.kind.reader.cut(
                file.size,
                compression=file.kind.compression,
                sharding=sharding,
                limit=limit,
                opened=lambda: self._opener(file),
            )
        if fault := fault_of_cut(slices):
            # Rows between slices would be lost without an error: nothing else counts a file's rows.
            raise InvalidSpecError(
                f"{file.uri}: the format {name} cut it wrongly: {fault}; correct `cut` of that format"
            )
        return slices


def first_generation(spec: BatchSpec, files: Sequence[SourceFile], slicer: Slicer) -> Generation:
    """Cut all *files* into shards, with ids from 0 in the order of the files.

    Raises:
        InvalidSpecError: The files cannot be cut, or the parts cannot be written, as the spec says.
    """
    sink_format = spec.sink.format or (files[0].kind.format if files else DEFAULT)
    spec.check_parts(sink_format)
    sharding = _sharding(spec, files)
    if slicer.sample is None or slicer.sample.share == 1:
        cuts = _cut(files, sharding, limit=spec.source.limit, slicer=slicer)
    else:
        cuts = _by_file(slicer.sampled(files, slicer.sample))
    pack = sharding.count if spec.source.shard else default_pack(cuts, shard=sharding.count)
    compression = spec.sink.compression or format_named(sink_format).default_compression
    facts = PlanFacts(0, sink_format, compression, sharding.unit, sharding.count, pack)
    shards = _numbered(cuts, facts, first_id=0)
    width = max(5, len(str(max(len(shards) - 1, 0))))
    return Generation(replace(facts, width=width), shards)


def next_generation(
    spec: BatchSpec,
    stored: StoredPlan,
    files: Sequence[SourceFile],
    *,
    slicer: Slicer,
    accept_vanished: bool,
) -> Generation | None:
    """Return the generation by which *files* change the *stored* plan; None for no change.

    Raises:
        InputChangedError: A file vanished, and the user has not accepted that.
        InvalidSpecError: Files cannot be cut, or parts cannot be written in the format of the
            stored plan, as the spec says.
    """
    spec.check_parts(stored.facts.format)
    # Any slice gives the identity of its file: all slices of a file have the same.
    planned = {piece.uri: (piece.size, piece.identity) for piece in stored.slices()}
    now = {file.uri: file for file in files}
    vanished = [uri for uri in planned if uri not in now]
    if vanished and not accept_vanished:
        raise InputChangedError(_vanished(vanished))
    changed = {f.uri for f in files if planned.get(f.uri) != (f.size, f.identity)}
    retired, stale = _retired(stored, changed.union(vanished))
    to_cut = [file for file in files if file.uri in stale]
    limit = spec.source.limit
    if limit is not None:
        unchanged = (shard for shard in stored.active if shard.id not in retired)
        # A shard of dead letters repeats rows that are counted with their first shard.
        rows = sum(s.rows or 0 for s in unchanged if s.retries is None)
        limit = max(limit - rows, 0)
    sharding = Sharding(stored.facts.unit, stored.facts.count)  # type: ignore[arg-type]  # as stored
    first_id = len(stored.active) + len(stored.retired)
    cuts = _cut(to_cut, sharding, limit=limit, slicer=slicer)
    shards = _numbered(cuts, stored.facts, first_id=first_id)
    return Generation(stored.facts, shards, retired) if shards or retired else None


def _retired(
    stored: StoredPlan, stale: AbstractSet[str]
) -> tuple[tuple[int, ...], AbstractSet[str]]:
    """Return the shards that read one of the *stale* files, and all files that need new shards.

    A shard of several files takes the others with it: its part has their rows, too.
    """
    retired: list[Shard] = []
    count = -1
    while count < len(stale):  # a file cut into several shards may link them to others
        count = len(stale)
        retired = [s for s in stored.active if any(p.uri in stale for p in s.slices)]
        stale = stale | {piece.uri for shard in retired for piece in shard.slices}
    return tuple(shard.id for shard in retired), stale


def _vanished(uris: Sequence[str]) -> str:
    names = "".join(f"\n  {uri}" for uri in uris[:10])
    more = f"\n  and {len(uris) - 10} more" if len(uris) > 10 else ""
    return (
        f"{len(uris)} source file(s) of the plan are gone:{names}{more}\n"
        "Bring them back, or run with --accept-changes to take their rows out of the output."
    )


def partition_change(generations: Sequence[Generation], source: SourceSpec) -> list[str]:
    """Return a difference if folder names give columns that the rows of a stored plan lack.

    That can be so for plans of format version 1, which store no place: such columns were not read.
    """
    if source.partitioning == "none" or any(one.place.sink for one in generations):
        return []
    uris = {p.uri for one in generations for shard in one.shards for p in shard.slices}
    gains = any(partition_columns(uri, source.uris) for uri in uris)
    return ["source.partitioning: none -> hive"] if gains else []


def _sharding(spec: BatchSpec, files: Iterable[SourceFile]) -> Sharding:
    """Return how to cut *files*; by default, into 256 shards, but each of 1 to 32 MiB."""
    wanted = spec.source.shard
    if wanted is None:
        total = sum(file.size for file in files)
        return Sharding("bytes", min(max(total // _MANY_SHARDS, _MIN_SHARD), _MAX_SHARD))
    if wanted.row_groups and not all(_format(file).has_row_groups for file in files):
        raise InvalidSpecError(
            "source.shard.row_groups is for Parquet only; give rows, bytes or files"
        )
    for unit in ("rows", "bytes", "row_groups", "files"):
        if count := getattr(wanted, unit):
            return Sharding(unit, count)
    raise InvalidSpecError("source.shard is empty: give rows, bytes, row_groups or files")


def _cut(
    files: Sequence[SourceFile], sharding: Sharding, *, limit: int | None, slicer: Slicer
) -> list[CutFile]:
    """Return the slices of each of *files* that has any, and of at most *limit* rows in all."""
    if limit is None:
        slices = partial(slicer.slices, sharding=sharding, limit=None)
        # Threads only if files are read: they would slow down a cut that needs only sizes.
        is_read = sharding.unit == "rows" or any(map(_reads_to_cut, files))
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
            cuts = zip(files, (pool.map if is_read else map)(slices, files), strict=True)
            return [(file, pieces) for file, pieces in cuts if pieces]
    # One after the other: the rows of the files before decide how much of a file is needed.
    cut: list[CutFile] = []
    for file in files:
        pieces = slicer.slices(file, sharding, limit)
        limit -= sum(piece.rows or 0 for piece in pieces)
        if pieces:
            cut.append((file, pieces))
    return cut


def _by_file(picked: Iterable[Picked]) -> list[CutFile]:
    """Return neighbouring slices of one file together."""
    by_file = groupby(picked, key=itemgetter(0))
    return [(file, [piece for _, piece in some]) for file, some in by_file]


def _format(file: SourceFile) -> Format:
    return file.kind.reader


def _reads_to_cut(file: SourceFile) -> bool:
    return _format(file).reads_to_cut


def _numbered(cuts: Iterable[CutFile], facts: PlanFacts, *, first_id: int) -> tuple[Shard, ...]:
    return tuple(
        Shard(shard_id, tuple(slice_of(file, piece) for file, piece in slices))
        for shard_id, slices in enumerate(packed(cuts, facts), start=first_id)
    )
