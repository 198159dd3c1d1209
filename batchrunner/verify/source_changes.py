"""Compares source files with those that the run read: unchanged, only touched, changed, gone."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from batchrunner.checkpoint import RunLocation, Sentinel
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.same_bytes import Comparer, Comparison
from batchrunner.driver.source_files import list_source
from batchrunner.errors import InputChangedError, InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.registry import DEFAULT, FileKind
from batchrunner.shard import Shard, Slice
from batchrunner.spec import SourceSpec
from batchrunner.storage import locate
from batchrunner.verify.evidence import Evidence

_NAMED = 10


def with_current_files(run: RunLocation, evidence: Evidence) -> Evidence:
    """Return *evidence* with the present identities of source files whose bytes are the same.

    Its `changed` has the other files. Decides as the next run would, and writes nothing. Lists the
    source once, and reads only files whose time changed: the bytes that their committed shards read.

    Raises:
        StorageError: The source cannot be listed.
    """
    planned = {piece.uri for piece in evidence.plan.slices()}
    files = _files(run.spec.source, planned)
    comparer = Comparer.of(run.spec)
    comparison = comparer.compare(evidence.plan, list(files.values()), _own_sentinels(evidence))
    plan = evidence.plan.identified(comparison.same)
    now = {piece.uri: piece for piece in plan.slices()}
    changes = {uri: _change(piece, files.get(uri), comparison) for uri, piece in now.items()}
    return replace(evidence, plan=plan, changed={uri: why for uri, why in changes.items() if why})


def refuse_changed(shards: Sequence[Shard], changed: Mapping[str, str]) -> None:
    """Check that at least one of *shards* still has its source files.

    Raises:
        InputChangedError: A file of each changed, so that nothing can be compared.
    """
    if not shards or not all(is_changed(shard, changed) for shard in shards):
        return
    uris = sorted({p.uri for shard in shards for p in shard.slices if p.uri in changed})
    lines = [f"\n  {uri}: {changed[uri]}" for uri in uris[:_NAMED]]
    more = f"\n  and {len(uris) - _NAMED:,} more" if len(uris) > _NAMED else ""
    raise InputChangedError(
        "nothing can be compared: no committed shard has the source file that it was made of:"
        f"{''.join(lines)}{more}\n"
        "Bring back the files that were read and verify again; or run first, and verify after it."
    )


def is_changed(shard: Shard, changed: Container[str]) -> bool:
    """Return whether a source file of *shard* is among the *changed* ones."""
    return any(piece.uri in changed for piece in shard.slices)


def _files(source: SourceSpec, planned: Iterable[str]) -> dict[str, SourceFile]:
    """Return the *planned* files that exist: from the listing, or else looked up by name."""
    try:
        listed = {file.uri: file for file in list_source(source).files}
    except (ObjectNotFoundError, InvalidSpecError):  # the source has become empty, or ambiguous
        listed = {}
    return {file.uri: file for uri in planned for file in _file(uri, listed, source)}


def _file(uri: str, listed: Mapping[str, SourceFile], source: SourceSpec) -> Iterator[SourceFile]:
    if uri in listed:
        yield listed[uri]
        return
    storage, key = locate(uri, storage_options=source.storage_options)
    if entry := storage.head(key):
        kind = source.kind_of(uri) or FileKind(DEFAULT)
        yield SourceFile(uri, entry.size, entry.identity, kind)


def _own_sentinels(evidence: Evidence) -> dict[int, Sentinel]:
    """Return the sentinels of their own shard: the hash in a misplaced one proves nothing."""
    return {
        shard: sentinel
        for shard, sentinel in evidence.sentinels.items()
        if (sentinel.run_uid, sentinel.shard) == (evidence.run_uid, shard)
    }


def _change(piece: Slice, file: SourceFile | None, comparison: Comparison) -> str:
    """Return how the file of *piece* changed, and the way out; "" if it did not."""
    if file is None:
        return (
            "it is gone, so nothing was compared with it; bring it back, or "
            "`batchrunner run --accept-changes` takes its rows out of the output"
        )
    if (file.size, file.identity) == (piece.size, piece.identity):
        return ""
    if file.size != piece.size:
        why = f"it has {file.size:,} bytes, and had {piece.size:,} when it was planned"
    elif file.uri in comparison.changed:
        why = "its bytes differ from those that were read"
    else:
        why = "it has another time, and no committed shard recorded a hash to compare it with"
    return f"{why}, so nothing was compared with it; `batchrunner run` plans it anew"
