"""Lists the files of a source."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.contract import Cut
from batchrunner.formats.partitions import glob_root, partition_columns
from batchrunner.formats.registry import BUILT_IN, FileKind, file_kind, format_named
from batchrunner.shard import Slice
from batchrunner.spec import BatchSpec, SourceSpec
from batchrunner.storage import Entry, is_path, locate, open_storage
from batchrunner.storage.disk.links import file_number, links_below

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the source.

    Attributes:
        uri: Absolute URI or path.
        size: Size in bytes.
        identity: Changes whenever the bytes change; may change without them.
        kind: Format and compression.
    """

    uri: str
    size: int
    identity: str
    kind: FileKind


def slice_of(file: SourceFile, cut: Cut) -> Slice:
    """Return the slice that *cut* makes of *file*."""
    return Slice(
        file.uri, cut.slicing, cut.start, cut.stop, file.size, file.identity, cut.rows, cut.weight
    )


Opener = Callable[[SourceFile], BinaryIO]


def opener_of(spec: BatchSpec) -> Opener:
    """Return a function that opens a source file; reads fail if it changed since the listing."""

    def opened(file: SourceFile) -> BinaryIO:
        storage, key = locate(file.uri, storage_options=spec.source.storage_options)
        return storage.open(Entry(key, file.size, file.identity))

    return opened


@dataclass(frozen=True, slots=True)
class SourcePattern:
    """One URI of a source, split into a folder and a glob.

    Attributes:
        root: The folder to list, or the file.
        pattern: Matches the keys below `root` that belong to the source; None if the URI is no
            glob.
    """

    root: str
    pattern: re.Pattern[str] | None

    @classmethod
    def of(cls, uri: str) -> SourcePattern:
        root = glob_root(uri)
        if root == uri:
            return cls(uri, None)
        pattern = uri.removeprefix(root).removeprefix("/")
        return cls(root, re.compile(_glob_to_regex(pattern), re.DOTALL))

    def selects(self, uri: str, *, format: str | None) -> FileKind | None:  # noqa: A002 - the spec's word
        """Return the kind of the file *uri*; None if it does not belong to the source.

        A folder selects the files whose suffix names a format; a glob selects those that it
        matches. Names that begin with "." or "_" are never data. With *format*, no other format is
        selected.
        """
        prefix = self.root.rstrip("/") + "/"
        if not uri.startswith(prefix):
            return None
        key = uri.removeprefix(prefix)
        if is_hidden(key):
            return None
        if self.pattern is not None:
            return file_kind(key, format=format) if self.pattern.fullmatch(key) else None
        return file_kind(key, format=format, says_it=True)


def _glob_to_regex(pattern: str) -> str:
    # The expression below tries longer tokens first. `**/` also matches no folder at all.
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
    """The files of a source.

    Attributes:
        files: The files, in the order of the source's URIs and sorted within each, each URI once.
        links: URIs of the files that are links.
        notes: Warnings for the user: files that are named twice and read once, or passed over.
    """

    files: tuple[SourceFile, ...]
    links: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def read_once(self, planned: Container[str] = frozenset()) -> Listing:
        """Return the listing without second names of one file on a disk, such as links to it.

        A URI in *planned* stays in any case, so that a new name takes no shard out of the plan. Of
        the other names, one stays if none is planned: one that is no link, if possible.
        """
        dropped: dict[str, str] = {}
        for names in _names_of_one_file(self.files):
            chosen = min(names, key=lambda uri: (uri not in planned, uri in self.links))
            dropped |= {uri: chosen for uri in names if uri != chosen and uri not in planned}
        files = tuple(file for file in self.files if file.uri not in dropped)
        notes = (_twice(*next(iter(dropped.items())), len(dropped)),) if dropped else ()
        return replace(self, files=files, notes=self.notes + notes)


def _names_of_one_file(files: Iterable[SourceFile]) -> Iterator[list[str]]:
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for file in files:
        alike[file.size, file.identity].append(file.uri)
    for uris in alike.values():
        # All names of one file have its size and time: inodes are read only where both are equal.
        if len(uris) > 1 and is_path(uris[0]):
            by_number: dict[object, list[str]] = defaultdict(list)
            for uri in uris:
                by_number[file_number(uri) or uri].append(uri)
            yield from (names for names in by_number.values() if len(names) > 1)


def _twice(uri: str, chosen: str, number: int) -> str:
    more = f", and {number - 1:,} more files are reached twice" if number > 1 else ""
    return f"source: {uri} and {chosen} are one file; it is read once{more}"


def list_source(source: SourceSpec) -> Listing:
    """List the files of *source*; open none.

    Raises:
        InvalidSpecError: The name of a file does not show its format or is no UTF-8, or the formats
            differ.
        ObjectNotFoundError: A URI of the source names no file, or a folder without files to read.
    """
    files: dict[str, SourceFile] = {}
    links: set[str] = set()
    notes: list[str] = []
    for uri in source.uris:
        listing = _list_one(uri, source)
        if not listing.files:
            raise ObjectNotFoundError(
                f"source {uri}: there is no such file, or no {_endings()} file in it; "
                "check the path, or name the files and give source.format"
            )
        twice = [file.uri for file in listing.files if file.uri in files]
        if twice:
            notes.append(f"source: {twice[0]} is named twice; it is read once")
        files.update({file.uri: file for file in listing.files if file.uri not in files})
        links |= listing.links
        notes += listing.notes
    _check_names(files)
    _check_one_format(files.values())
    if source.partitioning == "hive":
        for uri in files:
            partition_columns(uri, source.uris)  # it raises for a column named twice
    return Listing(tuple(files.values()), frozenset(links), tuple(notes))


def _endings() -> str:
    return " or ".join(format_named(name).suffixes[0] for name in BUILT_IN)


def format_by_names(source: SourceSpec) -> str | None:
    """Return the format that the URIs of *source* show by themselves; None for none or several."""
    formats = {kind.format for uri in source.uris if (kind := file_kind(uri))}
    return source.format or (formats.pop() if len(formats) == 1 else None)


def _list_one(uri: str, source: SourceSpec) -> Listing:
    storage, key = locate(uri, storage_options=source.storage_options)
    entry = storage.head(key) if key else None
    if entry is not None:  # before any glob: a file's name may look like one
        return Listing((_file(uri, entry, _kind_of_named_file(uri, source)),))
    pattern = SourcePattern.of(uri)
    base = pattern.root.rstrip("/")
    folder = open_storage(pattern.root, storage_options=source.storage_options)
    options = source.options
    files: list[SourceFile] = []
    unknown: list[str] = []
    for entry in folder.list(recursive=True):
        name = f"{base}/{entry.key}"
        if kind := pattern.selects(name, format=source.format):
            files.append(_file(name, entry, replace(kind, options=options) if options else kind))
        elif pattern.pattern is None and not is_hidden(entry.key) and _says_little(entry.key):
            unknown.append(entry.key)
    files, yielding = _without_yielding(files)
    unknown = sorted([*unknown, *(file.uri.removeprefix(f"{base}/") for file in yielding)])
    links = sorted(links_below(pattern.root), key=lambda link: link.key)
    astray = [link.key for link in links if not link.leads_to_file and pattern.pattern is None]
    return Listing(
        tuple(files),
        frozenset(f"{base}/{link.key}" for link in links if link.leads_to_file),
        tuple(_passed_over(uri, unknown, astray)),
    )


def _says_little(key: str) -> bool:
    """Return whether the name *key* does not say for certain that it is no file of the source."""
    kind = file_kind(key)
    return kind is None or format_named(kind.format).gives_way


def _without_yielding(files: list[SourceFile]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Return the files to read, and those of formats that give way to the formats of others."""
    gives_way = {name: format_named(name).gives_way for name in {f.kind.format for f in files}}
    if len(gives_way) < 2 or all(gives_way.values()):
        return files, []
    return (
        [file for file in files if not gives_way[file.kind.format]],
        [file for file in files if gives_way[file.kind.format]],
    )


def is_hidden(key: str) -> bool:
    """Return whether *key* is never data: one of its folders or its name begins with "." or "_"."""
    return any(segment[0] in "._" for segment in key.split("/") if segment)


def _passed_over(uri: str, unknown: Sequence[str], astray: Sequence[str]) -> Iterator[str]:
    passed = []
    if unknown:
        passed.append(f"{len(unknown):,} file(s) whose names say no format ({_some(unknown)})")
    if astray:
        passed.append(f"{len(astray):,} link(s) to folders or to nothing ({_some(astray)})")
    if passed:
        yield (
            f"source {uri}: passed over {' and '.join(passed)}; to read them, name them in source.uri, "
            "with source.format"
        )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _file(uri: str, entry: Entry, kind: FileKind) -> SourceFile:
    return SourceFile(uri, entry.size, entry.identity, kind)


def _kind_of_named_file(uri: str, source: SourceSpec) -> FileKind:
    kind = source.kind_of(uri)
    if kind is None:
        raise InvalidSpecError(
            f"source {uri}: its name does not show its format; give source.format: "
            f"{' or '.join(BUILT_IN)}"
        )
    return kind


def _check_names(uris: Iterable[str]) -> None:
    """Refuse names that are no text: neither the plan nor a report could hold them."""
    shown = {uri: uri.encode(errors="backslashreplace").decode() for uri in uris}
    bad = [text for uri, text in shown.items() if text != uri]
    if bad:
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise InvalidSpecError(
            f"source: {bad[0]}: its name is no UTF-8{more}; rename the file, or leave it out with a "
            "glob in source.uri"
        )


def _check_one_format(files: Iterable[SourceFile]) -> None:
    by_format = {file.kind.format: file for file in files}
    if len(by_format) > 1:
        one, other = list(by_format.values())[:2]
        raise InvalidSpecError(
            f"the source mixes formats: {one.uri} and {other.uri}; give source.format, or two specs"
        )
