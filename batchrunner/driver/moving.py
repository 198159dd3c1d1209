"""A run whose folder was moved or copied: URIs recorded at the old place, rewritten to the new one.

Source, sink and checkpoint move together when the folder around them does. The ends of their URIs
are then the same as before, and what differs in front of these is the move.
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
    """A move of one folder, or prefix, to another.

    Attributes:
        old: URI of the folder when the run was recorded.
        new: Its URI now.
    """

    old: str
    new: str

    def __call__(self, uri: str) -> str:
        """Return *uri* as of the new place; unchanged if it lies outside of the old one."""
        if uri == self.old or uri.startswith(f"{self.old}/"):
            return self.new + uri[len(self.old) :]
        return uri

    def back(self, uri: str) -> str:
        """Return *uri*, of the new place, as of the old one."""
        return Move(self.new, self.old)(uri)


def place_of(spec: BatchSpec) -> RunPlace:
    """Return where *spec* puts its run."""
    return RunPlace(spec.sink.uri, spec.checkpoint_uri)


def moves(old: RunPlace, new: RunPlace) -> Iterator[Move]:
    """Yield each folder rename that turns *old* into *new*, the outermost folder first.

    None unless sink and checkpoint both moved: a new sink alone is a change of the spec.
    """
    before, after = old.sink.split("/"), new.sink.split("/")
    shared = _shared_end(before, after)
    for count in range(shared, 0, -1):
        move = Move("/".join(before[:-count]), "/".join(after[:-count]))
        # Equal: nothing moved so far out. And a checkpoint that the move does not explain is another.
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
    recorded = next((g.place for g in generations if g.place.sink), None)
    try:
        sink = json.loads(decisive.get("sink.uri", '""'))
    except ValueError:  # a digest: the value came from the environment
        sink = recorded.sink if recorded else ""
    if recorded and recorded.sink == sink:
        return recorded
    inside = spec.checkpoint_uri.removeprefix(spec.sink.uri)
    return RunPlace(sink, sink + inside) if inside.startswith("/") else RunPlace()


def changes_since(
    recorded: Mapping[str, str], decisive: Mapping[str, str], *, was: RunPlace, spec: BatchSpec
) -> list[str]:
    """Return a line for each field that differs from what is *recorded*, but for a move."""
    uris = {path: recorded.get(path, "") for path in ("sink.uri", "source.uri")}
    remaining = [
        differences(_files_moved(recorded, decisive, move), {**decisive, **then})
        for move in moves(was, place_of(spec))
        # Of these two every character must be explained, or else it is another sink or source.
        if not differences(uris, then := _as_before(spec, move.back))
    ]
    # Several moves may explain the new place: `a/b/out` got to `c/b/out` with `a` or with `a/b`. The one
    # that leaves the fewest differences counts: a file in `a`, but outside of `a/b`, may have stayed.
    return min(remaining, key=len) if remaining else differences(recorded, decisive)


def _files_moved(
    recorded: Mapping[str, str], decisive: Mapping[str, str], move: Move
) -> Mapping[str, str]:
    """Return what is *recorded*, with the files of the capability named as *move* leaves them.

    A file that stayed keeps its name. So do all where two would get the same name: the hash of one of
    them would be lost.
    """
    now = paths_of_files(decisive)
    old = paths_of_files(recorded)
    names = {name: name if name in now and move(name) not in now else move(name) for name in old}
    if len(set(names.values())) < len(names):
        return recorded
    rest = {path: text for path, text in recorded.items() if path not in old.values()}
    return rest | {path_of_file(names[name]): recorded[path] for name, path in old.items()}


def _as_before(spec: BatchSpec, back: Callable[[str], str]) -> dict[str, str]:
    """Return the decisive fields that are URIs, as `decisive_fields` wrote them before the move."""
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
    """Return the URIs that the file at *uri* may have had at the former *places* of the run."""
    return {move.back(uri) for place in places for move in moves(place, here)}


def _brought(one: Generation, old: RunPlace, here: RunPlace, spec: BatchSpec) -> Generation:
    uris = {shard.uri for shard in one.shards} | one.identities.keys()
    # Only a move that brings all of its files into the source: else the source stayed where it was.
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
