"""Refuses a source that would read what its own run writes, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from batchrunner.checkpoint.incarnations import example_keys
from batchrunner.driver.source_files import Listing, SourcePattern, list_source
from batchrunner.errors import InvalidSpecError
from batchrunner.formats.registry import format_named, part_suffixes
from batchrunner.spec import BatchSpec, SourceSpec
from batchrunner.storage.disk.links import real_uri

_STEMS = ("part-00000", "part-00001", "part-12345")
_FOLDERS = ("", "_retired/", "_damaged/0/")

_WILDCARD = re.compile(r"\[!?\]?([^\]])[^\]]*\]|\*+|\?")
_PART = re.compile(r"part-\d{5,19}\..+")


def in_sink() -> list[str]:
    """Return example keys of parts: each folder and suffix that a run may give them in its sink."""
    ends = list(part_suffixes())
    return [f"{folder}{stem}{end}" for folder in _FOLDERS for stem in _STEMS for end in ends]


def list_apart(spec: BatchSpec) -> Listing:
    """List the source of *spec*, which must lie apart from its sink and checkpoint.

    Raises:
        InvalidSpecError: The source overlaps what the run writes, or cannot be read as the spec
            says.
        StorageError: The source cannot be listed, or holds no file.
    """
    sink, checkpoint = spec.sink.uri, spec.checkpoint_uri
    for name in filter(None, (spec.source.format, spec.sink.format)):
        format_named(name)  # loaded now, so that its suffix counts in the check below
    check_apart(spec.source, sink, checkpoint, any_name=_publishes_files(spec))
    listing = list_source(spec.source)
    check_links(listing.links, sink, checkpoint)
    return listing


def _publishes_files(spec: BatchSpec) -> bool:
    named = spec.sink.format
    return named is not None and format_named(named).of_parts.publishes_files


def check_apart(
    source: SourceSpec, sink: str, checkpoint: str | None = None, *, any_name: bool = False
) -> None:
    """Refuse a *source* in which the next run would read what this run wrote.

    Resolves links: through one, a folder may lie in another although its path does not show it. With
    *any_name*, rows name files that are written into the sink.

    Raises:
        InvalidSpecError: The sink or the checkpoint lies in the source, or the source in one of
            them.
    """
    for uri in source.uris:
        pattern = SourcePattern.of(uri)
        for resolved in {pattern, replace(pattern, root=real_uri(pattern.root))}:
            _check(resolved, uri, source, sink, checkpoint)
            if any_name:
                _check_names(resolved, uri, source, sink)


def _check_names(pattern: SourcePattern, uri: str, source: SourceSpec, sink: str) -> None:
    """Refuse a sink of files, of any name, in the source *uri*."""
    # A name that the source would select: its own pattern, with something in place of each wildcard.
    name = _WILDCARD.sub(lambda found: found[1] or "x", uri.rpartition("/")[2])
    for at in _names(sink):
        some = (f"{at}/{name}", f"{at}/x/{name}")
        if any(pattern.selects(key, format=source.format) for key in some):
            raise InvalidSpecError(
                f"the sink {sink} lies in the source {uri}: the files in it would be read as input by the next "
                "run; write somewhere else"
            )


def _check(
    pattern: SourcePattern, uri: str, source: SourceSpec, sink: str, checkpoint: str | None
) -> None:
    def selects(folder: str, keys: Iterable[str]) -> bool:
        names = (f"{at}/{key}" for at in {folder, real_uri(folder)} for key in keys)
        return any(pattern.selects(name, format=source.format) for name in names)

    if selects(sink, in_sink()) or any(_is_part(pattern.root, at) for at in _names(sink)):
        raise InvalidSpecError(
            f"the sink {sink} lies in the source {uri}: its parts would be read as input by the "
            "next run; write somewhere else"
        )
    if checkpoint is None:
        return
    if selects(checkpoint, example_keys()) or any(
        _is_in(pattern.root, at) for at in _names(checkpoint)
    ):
        raise InvalidSpecError(
            f"the checkpoint {checkpoint} lies in the source {uri}: its records would be read as "
            "rows by the next run; set checkpoint_dir to a folder outside of the source"
        )


def check_links(links: Iterable[str], sink: str, checkpoint: str) -> None:
    """Refuse *links*, which are files of the source, if one leads to an object that the run writes.

    Raises:
        InvalidSpecError: A link leads to a part or into the checkpoint.
    """
    real_sink, real_checkpoint = real_uri(sink), real_uri(checkpoint)
    for link in links:
        # `check_apart` compares only folders, and a link in an allowed folder may lead anywhere.
        target = real_uri(link)
        if _is_part(target, real_sink) or _is_in(target, real_checkpoint):
            raise InvalidSpecError(
                f"the source's {link} is a link to {target}, which this run writes: it would be "
                "read as input by the next run; remove the link"
            )


def _names(folder: str) -> Iterator[str]:
    yield folder
    yield real_uri(folder)


def _is_in(uri: str, folder: str) -> bool:
    return uri == folder or uri.startswith(folder.rstrip("/") + "/")


def _is_part(uri: str, sink: str) -> bool:
    folder, _, name = uri.rpartition("/")
    return folder == sink.rstrip("/") and _PART.fullmatch(name) is not None
