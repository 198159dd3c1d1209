"""Sources that would read what their own run writes: refused before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from batchrunner.driver.source_files import Place
from batchrunner.errors import InvalidSpecError
from batchrunner.spec import SourceSpec
from batchrunner.storage.disk.links import real_uri

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_STEMS = ("part-00000", "part-00001", "part-12345")
_PARTS = [f"{stem}{suffix}" for stem in _STEMS for suffix in _SUFFIXES]
IN_SINK = [f"{folder}{part}" for folder in ("", "_retired/", "_damaged/0/") for part in _PARTS]
"""Names that a run may give to objects in its sink: examples of all kinds."""

IN_CHECKPOINT = [
    f"{fresh}{key}"
    for fresh in ("", "fresh/0001/")
    for key in (
        "run.json",
        "changes/0001.json",
        "plan/0000.parquet",
        "schema.arrow",
        "sentinels/part-00000.json",
        "sentinel_index/0.jsonl",
        "errors/part-00000.0.jsonl",
        "quarantine/part-00000.json",
        "attempts/0.json",
        "lease/00000001.json",
        "sessions/0.jsonl",
    )
]
"""The same for its checkpoint."""

_PART = re.compile(r"part-\d{5,19}\..+")


def check_apart(source: SourceSpec, sink: str, checkpoint: str | None = None) -> None:
    """Refuse a *source* in which the next run would find what this one wrote.

    Links are followed: a folder lies in another also when it is reached by another name.

    Raises:
        InvalidSpecError: The sink or the checkpoint lies in it, or it lies in one of them.
    """
    for uri in source.uris:
        for place in {Place.of(uri), _real(Place.of(uri))}:
            _check(place, uri, source, sink, checkpoint)


def _check(place: Place, uri: str, source: SourceSpec, sink: str, checkpoint: str | None) -> None:
    def selects(folder: str, keys: Iterable[str]) -> bool:
        names = (f"{at}/{key}" for at in {folder, real_uri(folder)} for key in keys)
        return any(place.selects(name, format=source.format) for name in names)

    if selects(sink, IN_SINK) or any(_is_part(place.root, at) for at in _names(sink)):
        raise InvalidSpecError(
            f"the sink {sink} lies in the source {uri}: its parts would be read as input by the "
            "next run; write somewhere else"
        )
    if checkpoint is None:
        return
    if selects(checkpoint, IN_CHECKPOINT) or any(
        _is_in(place.root, at) for at in _names(checkpoint)
    ):
        raise InvalidSpecError(
            f"the checkpoint {checkpoint} lies in the source {uri}: its records would be read as "
            "rows by the next run; set checkpoint_dir to a folder outside of the source"
        )


def check_links(links: Iterable[str], sink: str, checkpoint: str) -> None:
    """Refuse *links*, which are files of the source, that lead to what the run writes.

    Raises:
        InvalidSpecError: One does.
    """
    real_sink, real_checkpoint = real_uri(sink), real_uri(checkpoint)
    for link in links:
        target = real_uri(link)
        if _is_part(target, real_sink) or _is_in(target, real_checkpoint):
            raise InvalidSpecError(
                f"the source's {link} is a link to {target}, which this run writes: it would be "
                "read as input by the next run; remove the link"
            )


def _real(place: Place) -> Place:
    return replace(place, root=real_uri(place.root))


def _names(folder: str) -> Iterator[str]:
    yield folder
    yield real_uri(folder)


def _is_in(uri: str, folder: str) -> bool:
    return uri == folder or uri.startswith(folder.rstrip("/") + "/")


def _is_part(uri: str, sink: str) -> bool:
    folder, _, name = uri.rpartition("/")
    return folder == sink.rstrip("/") and _PART.fullmatch(name) is not None
