"""The files of a source, as listings show them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.naming import FileKind, file_kind
from batchrunner.formats.partitions import glob_root, partition_columns
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate, open_storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to read.

    Attributes:
        uri: Absolute.
        size: Bytes.
        identity: Differs whenever the bytes do.
        kind: Format and compression.
    """

    uri: str
    size: int
    identity: str
    kind: FileKind


@dataclass(frozen=True, slots=True)
class Place:
    """One URI of a source, taken apart.

    Attributes:
        root: The folder to list, or the file.
        pattern: What the keys below *root* must match, or None when it is no glob.
    """

    root: str
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, uri: str) -> Place:
        root = glob_root(uri)
        if root == uri:
            return cls(uri, None)
        pattern = uri.removeprefix(root).removeprefix("/")
        return cls(root, re.compile(_glob_to_regex(pattern), re.DOTALL))

    def selects(self, uri: str, *, format: str | None) -> FileKind | None:  # noqa: A002 - the spec's word
        """Return the kind of a file below the root, or None when it is no file of the source.

        A folder gives the files whose name tells the format; a glob those that it matches. Names
        that begin with "." or "_" are never data.
        """
        prefix = self.root.rstrip("/") + "/"
        if not uri.startswith(prefix):
            return None
        key = uri.removeprefix(prefix)
        if any(segment[0] in "._" for segment in key.split("/") if segment):
            return None
        if self.pattern is not None:
            return file_kind(key, format=format) if self.pattern.fullmatch(key) else None
        kind = file_kind(key)
        return kind if kind and format in (None, kind.format) else None


def _glob_to_regex(pattern: str) -> str:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", pattern, re.DOTALL)
    return "".join(pieces.get(token) or _literal_or_set(token) for token in tokens)


def _literal_or_set(token: str) -> str:
    if len(token) == 1:
        return re.escape(token)
    inside = token[1:-1].replace("\\", r"\\")
    return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"


def list_source(source: SourceSpec) -> list[SourceFile]:
    """Return the files of *source*, sorted within each of its URIs; one named twice counts once.

    Raises:
        InvalidSpecError: The format of a file cannot be told, or there are several.
        ObjectNotFoundError: One of the URIs names nothing that could be read.
    """
    files: dict[str, SourceFile] = {}
    for uri in source.uris:
        found = list(_list_one(uri, source))
        if not found:
            raise ObjectNotFoundError(
                f"source {uri}: there is no such file, or no .jsonl or .parquet file in it; "
                "check the path, or name the files and give source.format"
            )
        twice = [file.uri for file in found if file.uri in files]
        if twice:
            _log.warning("source: %s is named twice; it is read once", twice[0])
        files.update({file.uri: file for file in found if file.uri not in files})
    _check_one_format(files.values())
    if source.partitioning == "hive":
        for uri in files:
            partition_columns(uri, source.uris)  # it raises for a name that stands twice
    return list(files.values())


def _list_one(uri: str, source: SourceSpec) -> Iterator[SourceFile]:
    storage, key = locate(uri, storage_options=source.storage_options)
    entry = storage.head(key) if key else None
    if entry is not None:  # also when its name looks like a glob
        yield _file(uri, entry, _kind_of_named_file(uri, source.format))
        return
    place = Place.of(uri)
    folder = open_storage(place.root, storage_options=source.storage_options)
    for entry in folder.list(recursive=True):
        name = f"{place.root.rstrip('/')}/{entry.key}"
        if kind := place.selects(name, format=source.format):
            yield _file(name, entry, kind)


def _file(uri: str, entry: Entry, kind: FileKind) -> SourceFile:
    return SourceFile(uri, entry.size, entry.identity, kind)


def _kind_of_named_file(uri: str, format: str | None) -> FileKind:  # noqa: A002 - the spec's word
    kind = file_kind(uri, format=format)
    if kind is None:
        raise InvalidSpecError(
            f"source {uri}: its name does not tell its format; give source.format: jsonl or parquet"
        )
    return kind


def _check_one_format(files: Iterable[SourceFile]) -> None:
    by_format = {file.kind.format: file for file in files}
    if len(by_format) > 1:
        one, other = list(by_format.values())[:2]
        raise InvalidSpecError(
            f"the source mixes formats: {one.uri} and {other.uri}; give source.format, or two specs"
        )


def check_apart(source: SourceSpec, sink: str) -> None:
    """Refuse a sink whose parts the next run would take for input.

    Raises:
        InvalidSpecError: The sink is the source, or lies in it.
    """
    for uri in source.uris:
        part = f"{sink}/part-00000"
        names = [f"{part}.jsonl", f"{part}.jsonl.gz", f"{part}.jsonl.zst", f"{part}.parquet"]
        if any(Place.of(uri).selects(name, format=source.format) for name in names):
            raise InvalidSpecError(
                f"the sink {sink} lies in the source {uri}: its parts would be read as input by the "
                "next run; write somewhere else"
            )
