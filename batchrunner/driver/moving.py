"""A run whose folder was moved or copied: rewrites the URIs recorded at the old place.

If the folder around source, sink and checkpoint is moved, all three move together. The ends of
their URIs stay the same; the beginnings differ, and show which folder was moved where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrunner.checkpoint import Generation, RunPlace
from batchrunner.checkpoint.plan_table import moved, shards_in, table_of
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
        """Return *uri* with the old folder replaced by the new; unchanged if it lies elsewhere."""
        if uri == self.old or uri.startswith(f"{self.old}/"):
            return self.new + uri[len(self.old) :]
        return uri

    def back(self, uri: str) -> str:
        """Return *uri* with the new folder replaced by the old; unchanged if it lies elsewhere."""
        return Move(self.new, self.old)(uri)


def place_of(spec: BatchSpec) -> RunPlace:
    """Return the place that *spec* gives its run: the URIs of sink and checkpoint."""
    return RunPlace(spec.sink.uri, spec.checkpoint_uri)


def moves(old: RunPlace, new: RunPlace) -> Iterator[Move]:
    """Yield each folder rename that turns *old* into *new*, the outermost folder first.

    None unless sink and checkpoint both moved: a new sink alone is a change of the spec.
    """
    before, after = old.sink.split("/"), new.sink.split("/")
    shared = _shared_end(before, after)
    for count in range(shared, 0, -1):
        move = Move("/".join(before[:-count]), "/".join(after[:-count]))
        # Equal: this folder did not move. And the same move must explain the checkpoint's new URI.
        if move.old != move.new and move(old.checkpoint) == new.checkpoint != old.checkpoint:
            yield move


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def recorded_place(
    decisive: Mapping[str, str], generations: Sequence[Generation], spec: BatchSpec
) -> RunPlace:
    """Return the place of the run when the fields *decisive* were recorded.

    Plans of format version 1 name no place. The sink is then read from *decisive*, and the
    checkpoint is taken to have been in the sink if it is there now.
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
    """Return a line for each field that differs from *recorded*, unless a move explains it."""
    uris = {path: recorded.get(path, "") for path in ("sink.uri", "source.uri")}
    remaining = [
        differences(_files_moved(recorded, decisive, move), {**decisive, **then})
        for move in moves(was, place_of(spec))
        # The move must explain both URIs entirely; otherwise it is another sink or source.
        if not differences(uris, then := _as_before(spec, move.back))
    ]
    # Several moves may explain the new place: `a/b/out` becomes `c/b/out` by a move of `a` or of
    # `a/b`. The one with the fewest differences counts: a file in `a` but outside of `a/b` may have
    # stayed.
    return min(remaining, key=len) if remaining else differences(recorded, decisive)


def _files_moved(
    recorded: Mapping[str, str], decisive: Mapping[str, str], move: Move
) -> Mapping[str, str]:
    """Return the fields *recorded*, with *move* applied to the names of the capability's files.

    A file that was not moved keeps its name. If two files would get the same name, all keep theirs:
    otherwise the hash of one would be lost.
    """
    now = paths_of_files(decisive)
    old = paths_of_files(recorded)
    names = {name: name if name in now and move(name) not in now else move(name) for name in old}
    if len(set(names.values())) < len(names):
        return recorded
    rest = {path: text for path, text in recorded.items() if path not in old.values()}
    return rest | {path_of_file(names[name]): recorded[path] for name, path in old.items()}


def _as_before(spec: BatchSpec, back: Callable[[str], str]) -> dict[str, str]:
    """Return the decisive fields that are URIs, in the text that was recorded before the move."""
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
    """Return *generations* with their URIs rewritten to the place where the run is now.

    Args:
        generations: The generations as stored.
        spec: The present spec of the run.
        was: The place to assume for generations that name none.
    """
    here = place_of(spec)
    return [_brought(one, one.place if one.place.sink else was, here, spec) for one in generations]


def former_uris(uri: str, places: Iterable[RunPlace], *, here: RunPlace) -> set[str]:
    """Return the URIs that the file at *uri* may have had at the former *places* of the run."""
    return {move.back(uri) for place in places for move in moves(place, here)}


def _brought(one: Generation, old: RunPlace, here: RunPlace, spec: BatchSpec) -> Generation:
    possible = list(moves(old, here))
    if not possible:
        return one
    table = table_of(one.shards)
    uris = {*table.column("uri").to_pylist(), *one.identities}
    # Only a move that brings all files into the source; otherwise the source was not moved.
    for move in possible:
        if all(_is_in(move(uri), spec.source.uris) for uri in uris):
            return replace(
                one,
                shards=tuple(shards_in(moved(table, move))),
                identities={move(uri): identity for uri, identity in one.identities.items()},
            )
    return one


def _is_in(uri: str, sources: Iterable[str]) -> bool:
    return any(uri == s or uri.startswith(glob_root(s).rstrip("/") + "/") for s in sources)
