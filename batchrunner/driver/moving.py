"""A run whose folder was moved or copied: what is recorded of the old place, read as of the new.

Source, sink and checkpoint move together when the folder around them does. What they have in
common at their ends is then the same, and what differs in front of it is the move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrunner.checkpoint import Generation, RunPlace
from batchrunner.formats.partitions import glob_root
from batchrunner.spec import BatchSpec
from batchrunner.spec.fingerprint import differences, path_of_file, paths_of_files


@dataclass(frozen=True, slots=True)
class Move:
    """From one folder, or prefix, to another.

    Attributes:
        old: URI that a recorded URI may lie below.
        new: URI that stands in its place.
    """

    old: str
    new: str

    def __call__(self, uri: str) -> str:
        """Return *uri* as of the new place; one that does not lie in the old one as it is."""
        if uri == self.old or uri.startswith(f"{self.old}/"):
            return self.new + uri[len(self.old) :]
        return uri

    def back(self, uri: str) -> str:
        """Return what *uri*, of the new place, was in the old one."""
        return Move(self.new, self.old)(uri)


def place_of(spec: BatchSpec) -> RunPlace:
    """Return where *spec* puts its run."""
    return RunPlace(spec.sink.uri, spec.checkpoint_uri)


def moves(old: RunPlace, new: RunPlace) -> Iterator[Move]:
    """Yield the moves that take *old* to *new*, that of the outermost folders first.

    Sink and checkpoint must both have moved: a checkpoint that is where it was, under a spec with
    another sink, is a change of the spec.
    """
    before, after = old.sink.split("/"), new.sink.split("/")
    shared = _shared_end(before, after)
    for count in range(shared, 0, -1):
        move = Move("/".join(before[:-count]), "/".join(after[:-count]))
        if move.old != move.new and move(old.checkpoint) == new.checkpoint != old.checkpoint:
            yield move


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def recorded_place(
    decisive: Mapping[str, str], generations: Sequence[Generation], spec: BatchSpec
) -> RunPlace:
    """Return where the run was when *decisive* was recorded.

    Plans of format version 1 name no place: the sink is then that of the record, and the checkpoint
    lay in it if it does now.
    """
    known = next((g.place for g in generations if g.place.sink), None)
    try:
        sink = json.loads(decisive.get("sink.uri", '""'))
    except ValueError:  # a digest: the value came from the environment
        sink = known.sink if known else ""
    if known and known.sink == sink:
        return known
    inside = spec.checkpoint_uri.removeprefix(spec.sink.uri)
    return RunPlace(sink, sink + inside) if inside.startswith("/") else RunPlace()


def changes_since(
    recorded: Mapping[str, str], decisive: Mapping[str, str], *, was: RunPlace, spec: BatchSpec
) -> list[str]:
    """Return a line for each field that differs from what is *recorded*, but for a move."""
    found = [
        differences(_files_moved(recorded, decisive, move), {**decisive, **then})
        for move in moves(was, place_of(spec))
        if not differences(_places(recorded), then := _as_before(spec, move.back))
    ]
    # The folders around may differ, too: a file that only seems to have moved with the outer ones
    # is where it was for the inner ones.
    return min(found, key=len) if found else differences(recorded, decisive)


def _files_moved(
    recorded: Mapping[str, str], decisive: Mapping[str, str], move: Move
) -> Mapping[str, str]:
    """Return what is *recorded*, with the files of the capability named as *move* leaves them.

    A file that stayed keeps its name. So do all where two would get the same: what one of them held
    would be forgotten.
    """
    now = paths_of_files(decisive)
    old = paths_of_files(recorded)
    names = {name: name if name in now and move(name) not in now else move(name) for name in old}
    if len(set(names.values())) < len(names):
        return recorded
    rest = {path: text for path, text in recorded.items() if path not in old.values()}
    return rest | {path_of_file(names[name]): recorded[path] for name, path in old.items()}


def _places(fields: Mapping[str, str]) -> dict[str, str]:
    return {path: fields.get(path, "") for path in ("sink.uri", "source.uri")}


def _as_before(spec: BatchSpec, back: Callable[[str], str]) -> dict[str, str]:
    """Return the decisive fields that are places, as `decisive_fields` would have written them."""
    uri = spec.source.uri
    source = back(uri) if isinstance(uri, str) else [back(one) for one in uri]
    texts = {"sink.uri": back(spec.sink.uri), "source.uri": source}
    return {
        path: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for path, value in texts.items()
    }


def brought_here(
    generations: Iterable[Generation], *, spec: BatchSpec, was: RunPlace
) -> list[Generation]:
    """Return *generations* with their URIs as of the place where the run is now.

    Args:
        generations: As stored.
        spec: Of the run now.
        was: The place of generations that name none.
    """
    here = place_of(spec)
    return [_brought(one, one.place if one.place.sink else was, here, spec) for one in generations]


def former_uris(uri: str, places: Iterable[RunPlace], *, here: RunPlace) -> set[str]:
    """Return what the file at *uri* may have been called where the run was before."""
    return {move.back(uri) for place in places for move in moves(place, here)}


def _brought(one: Generation, old: RunPlace, here: RunPlace, spec: BatchSpec) -> Generation:
    uris = {shard.uri for shard in one.shards} | one.identities.keys()
    for move in moves(old, here):
        if all(_is_in(move(uri), spec.source.uris) for uri in uris):
            return replace(
                one,
                shards=tuple(replace(shard, uri=move(shard.uri)) for shard in one.shards),
                identities={move(uri): identity for uri, identity in one.identities.items()},
            )
    return one


def _is_in(uri: str, sources: Iterable[str]) -> bool:
    return any(uri == s or uri.startswith(glob_root(s).rstrip("/") + "/") for s in sources)
