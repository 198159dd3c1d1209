"""The source files of a run as they are now: the same, of another time only, changed, or gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from batchrunner.checkpoint import RunLocation, Sentinel
from batchrunner.driver.same_bytes import Comparer, Comparison
from batchrunner.driver.source_files import SourceFile, list_source
from batchrunner.errors import InputChangedError, InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.registry import DEFAULT, FileKind, file_kind
from batchrunner.shard import Shard
from batchrunner.spec import SourceSpec
from batchrunner.storage import locate
from batchrunner.verify.evidence import Evidence

_NAMED = 10


def with_files_of_now(place: RunLocation, seen: Evidence) -> Evidence:
    """Return *seen* with the identities that its source files have now, where their bytes are the same.

    As the next run would decide it, and nothing is written. The others are `changed`. Lists the
    source once, and reads only files of another time: as many bytes as their committed shards did.

    Raises:
        StorageError: The source cannot be listed.
    """
    planned = {shard.uri: shard for shard in seen.plan.active}
    files = _files(place.spec.source, planned)
    comparer = Comparer.of(place.spec)
    found = comparer.compare(seen.plan, list(files.values()), _trusted(seen))
    plan = seen.plan.identified(found.same)
    now = {shard.uri: shard for shard in plan.active}
    told = {uri: _change(shard, files.get(uri), found) for uri, shard in now.items()}
    return replace(seen, plan=plan, changed={uri: why for uri, why in told.items() if why})


def refuse_changed(shards: Sequence[Shard], changed: Mapping[str, str]) -> None:
    """Refuse to call *shards* compared if the file of each of them changed.

    Raises:
        InputChangedError: So it is, and there are some.
    """
    uris = sorted({shard.uri for shard in shards})
    if not uris or not all(uri in changed for uri in uris):
        return
    lines = [f"\n  {uri}: {changed[uri]}" for uri in uris[:_NAMED]]
    more = f"\n  and {len(uris) - _NAMED:,} more" if len(uris) > _NAMED else ""
    raise InputChangedError(
        "nothing can be compared: no committed shard has the source file that it was made of:"
        f"{''.join(lines)}{more}\n"
        "Bring back the files that were read and verify again; or run first, and verify after it."
    )


def _files(source: SourceSpec, planned: Iterable[str]) -> dict[str, SourceFile]:
    """Return the *planned* files that are there: by a listing, and those that it lacks by name."""
    try:
        listed = {file.uri: file for file in list_source(source).files}
    except (ObjectNotFoundError, InvalidSpecError):  # less is there, or more, than when it was read
        listed = {}
    return {file.uri: file for uri in planned for file in _file(uri, listed, source)}


def _file(uri: str, listed: Mapping[str, SourceFile], source: SourceSpec) -> Iterator[SourceFile]:
    if uri in listed:
        yield listed[uri]
        return
    storage, key = locate(uri, storage_options=source.storage_options)
    if entry := storage.head(key):
        kind = file_kind(uri, format=source.format) or FileKind(DEFAULT)
        yield SourceFile(uri, entry.size, entry.identity, kind)


def _trusted(seen: Evidence) -> dict[int, Sentinel]:
    """Return the sentinels that stand where they belong: another shard's has another hash."""
    return {
        shard: sentinel
        for shard, sentinel in seen.sentinels.items()
        if (sentinel.run_uid, sentinel.shard) == (seen.run_uid, shard)
    }


def _change(shard: Shard, file: SourceFile | None, found: Comparison) -> str:
    """Return what became of the file of *shard*, and the way out; "" if it is what it was."""
    if file is None:
        return (
            "it is gone, so nothing was compared with it; bring it back, or "
            "`batchrunner run --accept-changes` takes its rows out of the output"
        )
    if (file.size, file.identity) == (shard.size, shard.identity):
        return ""
    if file.size != shard.size:
        why = f"it has {file.size:,} bytes, and had {shard.size:,} when it was planned"
    elif file.uri in found.changed:
        why = "its bytes differ from those that were read"
    else:
        why = "it has another time, and no committed shard recorded a hash to compare it with"
    return f"{why}, so nothing was compared with it; `batchrunner run` plans it anew"
