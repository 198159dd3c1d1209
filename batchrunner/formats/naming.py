"""What a file name says about what is inside."""

from __future__ import annotations

from dataclasses import dataclass

from batchrunner.errors import InvalidSpecError

JSONL, PARQUET = "jsonl", "parquet"

_SUFFIXES = {".jsonl": JSONL, ".ndjson": JSONL, ".parquet": PARQUET, ".pq": PARQUET}
_COMPRESSIONS = {".gz": "gz", ".zst": "zst"}


@dataclass(frozen=True, slots=True)
class FileKind:
    """A format, and the compression around the whole file (Parquet compresses inside)."""

    format: str
    compression: str | None = None


def file_kind(name: str, *, format: str | None = None) -> FileKind | None:  # noqa: A002 - the spec's word
    """Tell the kind of file *name*, or None when its name does not say.

    With *format*, the name only needs to say the compression.
    """
    stem, compression = _split_compression(name.lower())
    named = next((f for suffix, f in _SUFFIXES.items() if stem.endswith(suffix)), None)
    if PARQUET in (named, format) and compression:
        return None
    if format is None:
        return FileKind(named, compression) if named else None
    return FileKind(format, compression) if named in (None, format) else None


def sink_suffix(format: str, compression: str) -> str:  # noqa: A002 - the spec's word
    """Return the end of a part's name, such as `.jsonl.gz`."""
    if format == JSONL and compression in _COMPRESSIONS.values():
        return f".{format}.{compression}"
    if format in (JSONL, PARQUET):
        return f".{format}"
    raise InvalidSpecError(f"sink.format is {format!r}; it can be jsonl or parquet")


def _split_compression(name: str) -> tuple[str, str | None]:
    for suffix, compression in _COMPRESSIONS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), compression
    return name, None
