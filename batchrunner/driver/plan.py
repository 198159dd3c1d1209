"""The shards of a run: the stored plan, and how new, changed and vanished files change it.

An id is used only once. The shards of a new file get the next ids. The shards of a changed file are
retired and replaced by new ones, so that a published part never changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import itemgetter

from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.driver.file_table import SourceFile, SourceFiles
from batchrunner.driver.packing import CutFile, default_pack, default_packs, packed, size_of
from batchrunner.driver.row_windows import in_windows
from batchrunner.driver.sample import Sample
from batchrunner.driver.sampling import Picked, picked
from batchrunner.driver.source_files import Opener, opener_of
from batchrunner.driver.stored_plan import Differences, StoredPlan, differences
from batchrunner.errors import InputChangedError, InvalidSpecError
from batchrunner.formats.contract import Cut, Sharding
from batchrunner.formats.format_error import fault_of_cut, refused
from batchrunner.formats.partitions import partition_columns
from batchrunner.formats.registry import DEFAULT, FileKind, format_named, parts_format
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec, SourceSpec

_FOOTERS_AT_ONCE = 16
_WINDOW = 4096
_MIN_SHARD, _MAX_SHARD, _MANY_SHARDS = 1 << 20, 32 << 20, 256


class Slicer:
    """Cuts files into slices; reads each file only once.

    Results are cached because a driver surveys twice, and a cut by rows reads the whole file.
    With a *sample*, a new plan holds that much of the source only.

    Attributes:
        first: The files that `first_generation` has cut, and what it made of them; None before.
    """

    def __init__(self, opener: Opener, sample: Sample | None = None) -> None:
        self._opener, self.sample = opener, sample
        self._slices: dict[tuple[SourceFile, Sharding, int | None], list[Cut]] = {}
        self.first: tuple[SourceFiles, Generation] | None = None

    @classmethod
    def of(cls, spec: BatchSpec, *, sample: Sample | None = None) -> Slicer:
        """Return a slicer of the source files of *spec*."""
        return cls(opener_of(spec), sample)

    def sampled(self, files: Sequence[SourceFile], sample: Sample) -> list[Picked]:
        """Return slices of *files* that hold the *sample*."""
        return picked(files, sample, cut=self.slices, opener=self._opener)

    def slices(self, file: SourceFile, sharding: Sharding, limit: int | None) -> list[Cut]:
        """Return the slices of *file*, of at most *limit* rows in all. Safe in several threads."""
        if limit is None and not reads_to_cut(file.kind, sharding):
            return self._cut(file, sharding, limit)  # cheaper than to remember a million
        key = file, sharding, limit
        if key not in self._slices:
            self._slices[key] = self._cut(file, sharding, limit)
        return self._slices[key]

    def _cut(self, file: SourceFile, sharding: Sharding, limit: int | None) -> list[Cut]:
        name = file.kind.format
        if limit == 0 or not (file.size or file.kind.reader.has_empty_files):
            return []
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
        with refused(f"{file.uri} cannot be cut", name):
            return in_windows(file, slices, sharding, opener=self._opener)


def first_generation(spec: BatchSpec, files: Sequence[SourceFile], slicer: Slicer) -> Generation:
    """Cut all *files* into shards, with ids from 0 in the order of the files.

    Raises:
        InvalidSpecError: The files cannot be cut, or the parts cannot be written, as the spec says.
    """
    files = SourceFiles.of(files)
    if slicer.first and slicer.first[0].is_same_table(files):
        return slicer.first[1]
    sink_format = spec.sink.format or parts_format(files[0].kind.format if files else DEFAULT)
    spec.check_parts(sink_format)
    sharding = _sharding(spec, files)
    cuts: Iterable[CutFile]
    if slicer.sample and slicer.sample.share != 1:
        cuts = _by_file(slicer.sampled(files, slicer.sample))
        size, count = size_of(cuts), len(cuts)
    elif (limit := spec.source.limit) is not None:
        cuts = list(_first_rows(files, sharding, limit=limit, slicer=slicer))
        size, count = size_of(cuts), len(cuts)
    else:
        cuts, size, count = _cut(files, sharding, slicer=slicer), files.size(), len(files)
    pack = sharding.count
    if spec.source.seconds is not None:
        packs = default_packs(spec)
        pack = default_pack(size, files=count, shard=sharding.count, packs=packs)
    compression = spec.sink.compression or format_named(sink_format).of_parts.default_compression
    facts = PlanFacts(0, sink_format, compression, sharding.unit, sharding.count, pack)
    shards = _numbered(cuts, facts, first_id=0)
    width = max(5, len(str(max(len(shards) - 1, 0))))
    generation = Generation(replace(facts, width=width), shards)
    slicer.first = files, generation
    return generation


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
    found = differences(stored, SourceFiles.of(files))
    if found.vanished and not accept_vanished:
        raise InputChangedError(_vanished(found.vanished))
    sharding = Sharding(stored.facts.unit, stored.facts.count)  # type: ignore[arg-type]  # as stored
    if spec.source.limit is None:
        cuts = _cut(found.to_cut, sharding, slicer=slicer)
    else:
        limit = max(spec.source.limit - _rows_kept(stored, found), 0)
        cuts = _first_rows(found.to_cut, sharding, limit=limit, slicer=slicer)
    shards = _numbered(cuts, stored.facts, first_id=stored.next_id)
    if not shards and not found.retired:
        return None
    return Generation(stored.facts, shards, found.retired)


def _rows_kept(stored: StoredPlan, found: Differences) -> int:
    gone = set(found.retired)
    # A shard of dead letters repeats rows that are counted with their first shard.
    return sum(s.rows or 0 for s in stored.active if s.retries is None and s.id not in gone)


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


def _sharding(spec: BatchSpec, files: SourceFiles) -> Sharding:
    """Return how to cut *files*; by default, into 256 shards, but each of 1 to 32 MiB."""
    wanted = spec.source.shard
    if wanted is None or wanted.seconds is not None:
        return Sharding("bytes", min(max(files.size() // _MANY_SHARDS, _MIN_SHARD), _MAX_SHARD))
    if wanted.row_groups and not all(
        format_named(kind.format).has_row_groups for kind in files.used_kinds()
    ):
        raise InvalidSpecError(
            "source.shard.row_groups is for Parquet only; give rows, bytes or files"
        )
    for unit in ("rows", "bytes", "row_groups", "files"):
        if count := getattr(wanted, unit):
            return Sharding(unit, count)
    raise InvalidSpecError("source.shard is empty: give rows, bytes, row_groups, files or seconds")


def _cut(files: SourceFiles, sharding: Sharding, *, slicer: Slicer) -> Iterator[CutFile]:
    """Yield each of *files* that has slices, with them."""
    cut = partial(slicer.slices, sharding=sharding, limit=None)
    # Threads only if files are read: they would slow down a cut that needs only sizes.
    is_read = any(reads_to_cut(kind, sharding) for kind in files.used_kinds())
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        for start in range(0, len(files), _WINDOW):
            window = list(files[start : start + _WINDOW])
            slices = (pool.map if is_read else map)(cut, window)
            yield from (pair for pair in zip(window, slices, strict=True) if pair[1])


def _first_rows(
    files: Iterable[SourceFile], sharding: Sharding, *, limit: int, slicer: Slicer
) -> Iterator[CutFile]:
    """Yield each of *files* that has any of the first *limit* rows, with the slices of these."""
    for file in files:  # one after the other: the rows before decide how much of a file is needed
        pieces = slicer.slices(file, sharding, limit)
        limit -= sum(piece.rows or 0 for piece in pieces)
        if pieces:
            yield file, pieces


def _by_file(picked: Iterable[Picked]) -> list[CutFile]:
    """Return neighbouring slices of one file together."""
    by_file = groupby(picked, key=itemgetter(0))
    return [(file, [piece for _, piece in some]) for file, some in by_file]


def reads_to_cut(kind: FileKind, sharding: Sharding) -> bool:
    """Return whether files of *kind* are read to be cut by *sharding*."""
    return sharding.unit == "rows" or kind.reader.reads_to_cut


def _numbered(cuts: Iterable[CutFile], facts: PlanFacts, *, first_id: int) -> tuple[Shard, ...]:
    return tuple(
        Shard(shard_id, slices)
        for shard_id, slices in enumerate(packed(cuts, facts), start=first_id)
    )
