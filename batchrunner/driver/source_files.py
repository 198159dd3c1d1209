"""The files of a source, as listings show them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.naming import FileKind, file_kind
from batchrunner.formats.partitions import glob_root, partition_columns
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, is_path, locate, open_storage
from batchrunner.storage.disk.links import file_number, links_below

_SHOWN = 3


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
        if is_hidden(key):
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


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is in a source.

    Attributes:
        files: In the order of the source's URIs, and sorted within each; no URI is there twice.
        links: URIs of those that are links.
        notes: What people should know of it.
    """

    files: tuple[SourceFile, ...]
    links: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def read_once(self, planned: Container[str] = frozenset()) -> Listing:
        """Return the listing with each file of a disk under one of its names only.

        Under the name that is *planned* already, so that a new name takes nothing out of a plan;
        else under that which is no link; else under the first.
        """
        dropped: dict[str, str] = {}
        for names in _names_of_one_file(self.files):
            kept = min(names, key=lambda uri: (uri not in planned, uri in self.links))
            dropped |= {uri: kept for uri in names if uri != kept and uri not in planned}
        files = tuple(file for file in self.files if file.uri not in dropped)
        notes = (_twice(*next(iter(dropped.items())), len(dropped)),) if dropped else ()
        return replace(self, files=files, notes=self.notes + notes)


def _names_of_one_file(files: Iterable[SourceFile]) -> Iterator[list[str]]:
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for file in files:
        alike[file.size, file.identity].append(file.uri)
    for uris in alike.values():
        if len(uris) > 1 and is_path(uris[0]):  # one file has one size and one time
            by_number: dict[object, list[str]] = defaultdict(list)
            for uri in uris:
                by_number[file_number(uri) or uri].append(uri)
            yield from (names for names in by_number.values() if len(names) > 1)


def _twice(uri: str, kept: str, number: int) -> str:
    more = f", and {number - 1:,} more files are reached twice" if number > 1 else ""
    return f"source: {uri} and {kept} are one file; it is read once{more}"


def list_source(source: SourceSpec) -> Listing:
    """Return what there is in *source*.

    Raises:
        InvalidSpecError: The format of a file cannot be told, or there are several.
        ObjectNotFoundError: One of the URIs names nothing that could be read.
    """
    files: dict[str, SourceFile] = {}
    links: set[str] = set()
    notes: list[str] = []
    for uri in source.uris:
        found = _list_one(uri, source)
        if not found.files:
            raise ObjectNotFoundError(
                f"source {uri}: there is no such file, or no .jsonl or .parquet file in it; "
                "check the path, or name the files and give source.format"
            )
        twice = [file.uri for file in found.files if file.uri in files]
        if twice:
            notes.append(f"source: {twice[0]} is named twice; it is read once")
        files.update({file.uri: file for file in found.files if file.uri not in files})
        links |= found.links
        notes += found.notes
    _check_one_format(files.values())
    if source.partitioning == "hive":
        for uri in files:
            partition_columns(uri, source.uris)  # it raises for a name that stands twice
    return Listing(tuple(files.values()), frozenset(links), tuple(notes))


def format_by_names(source: SourceSpec) -> str | None:
    """Return the format that the URIs of *source* say without a listing; None when they do not."""
    formats = {kind.format for uri in source.uris if (kind := file_kind(uri))}
    return source.format or (formats.pop() if len(formats) == 1 else None)


def _list_one(uri: str, source: SourceSpec) -> Listing:
    storage, key = locate(uri, storage_options=source.storage_options)
    entry = storage.head(key) if key else None
    if entry is not None:  # also when its name looks like a glob
        return Listing((_file(uri, entry, _kind_of_named_file(uri, source.format)),))
    place = Place.of(uri)
    base = place.root.rstrip("/")
    folder = open_storage(place.root, storage_options=source.storage_options)
    files: list[SourceFile] = []
    unknown: list[str] = []
    for entry in folder.list(recursive=True):
        name = f"{base}/{entry.key}"
        if kind := place.selects(name, format=source.format):
            files.append(_file(name, entry, kind))
        elif place.pattern is None and not is_hidden(entry.key) and file_kind(entry.key) is None:
            unknown.append(entry.key)
    links = sorted(links_below(place.root), key=lambda link: link.key)
    astray = [link.key for link in links if not link.leads_to_file and place.pattern is None]
    return Listing(
        tuple(files),
        frozenset(f"{base}/{link.key}" for link in links if link.leads_to_file),
        tuple(_passed_over(uri, unknown, astray)),
    )


def is_hidden(key: str) -> bool:
    """Tell whether *key* is never data: a folder of it, or its name, begins with "." or "_"."""
    return any(segment[0] in "._" for segment in key.split("/") if segment)


def _passed_over(uri: str, unknown: Sequence[str], astray: Sequence[str]) -> Iterator[str]:
    told = []
    if unknown:
        told.append(f"{len(unknown):,} file(s) whose names say no format ({_some(unknown)})")
    if astray:
        told.append(f"{len(astray):,} link(s) to folders or to nothing ({_some(astray)})")
    if told:
        yield (
            f"source {uri}: passed over {' and '.join(told)}; to read them, name them in source.uri, "
            "with source.format"
        )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


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
