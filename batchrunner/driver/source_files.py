"""Lists the files of a source."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from batchrunner.driver.file_table import SourceFile, SourceFiles
from batchrunner.driver.finding_files import found_below, refuse_names
from batchrunner.driver.suspect_files import files_of_no_bytes, some, unfinished_outputs
from batchrunner.errors import InvalidSpecError, ObjectNotFoundError
from batchrunner.formats.contract import Cut
from batchrunner.formats.partitions import glob_root, partition_columns
from batchrunner.formats.registry import BUILT_IN, FileKind, file_kind, format_named
from batchrunner.shard import Slice
from batchrunner.spec import BatchSpec, SourceSpec
from batchrunner.storage import Entry, is_path, locate
from batchrunner.storage.disk.links import file_number
from batchrunner.storage.keys import is_hidden


def slice_of(file: SourceFile, cut: Cut) -> Slice:
    """Return the slice that *cut* makes of *file*."""
    return Slice(
        file.uri,
        cut.slicing,
        cut.start,
        cut.stop,
        size=file.size,
        identity=file.identity,
        rows=cut.rows,
        weight=cut.weight,
        modified=file.modified,
        skip=cut.skip,
        take=cut.take,
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

    def selects(
        self,
        uri: str,
        *,
        format: str | None,  # noqa: A002 - the spec's word
        options: str = "",
    ) -> FileKind | None:
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
            matches = self.pattern.fullmatch(key)
            return file_kind(key, format=format, options=options) if matches else None
        return file_kind(key, format=format, options=options, says_it=True)


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


Planned = Callable[[Sequence[str]], Container[str]]
"""Returns which of some URIs are files of the plan."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source.

    Attributes:
        files: The files, in the order of the source's URIs and sorted within each, each URI once.
        links: URIs of the files that are links.
        notes: Warnings for the user: files that are named twice and read once, or passed over.
        second_names: URIs of the files that may have other names among *files*; None if any may.
    """

    files: SourceFiles
    links: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    second_names: frozenset[str] | None = None

    def read_once(self, planned: Planned = lambda _: frozenset()) -> Listing:
        """Return the listing without second names of one file on a disk, such as links to it.

        A URI that is *planned* stays in any case, so that a new name takes no shard out of the plan. Of
        the other names, one stays if none is planned: one that is no link, if possible.
        """
        several = list(self._names_of_one_file())
        there = planned([uri for names in several for uri in names])
        dropped: dict[str, str] = {}
        for names in several:
            chosen = min(names, key=lambda uri: (uri not in there, uri in self.links))
            dropped |= {uri: chosen for uri in names if uri != chosen and uri not in there}
        if not dropped:
            return self
        notes = (*self.notes, _twice(*next(iter(dropped.items())), len(dropped)))
        return replace(self, files=self.files.without(dropped), notes=notes)

    def _names_of_one_file(self) -> Iterator[list[str]]:
        # All names of one file have its size and time: inodes are read only where both are equal.
        files = self.files
        if self.second_names is not None:
            if not self.second_names:
                return
            alike = files.alike(self.second_names)
        else:
            alike = files.alike()
        for uris in alike:
            if is_path(uris[0]):
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
    listings = [_list_one(uri, source) for uri in source.uris]
    for uri, listing in zip(source.uris, listings, strict=True):
        if not len(listing.files):
            raise ObjectNotFoundError(
                f"source {uri}: there is no such file, or no {_endings()} file in it; "
                "check the path, or name the files and give source.format"
            )
    listing = listings[0] if len(listings) == 1 else _merged(listings)
    _check_one_format(listing.files)
    if source.partitioning == "hive":
        _check_partitions(listing.files, source.uris)
    return replace(listing, notes=(*listing.notes, *files_of_no_bytes(listing.files)))


def _merged(listings: Sequence[Listing]) -> Listing:
    """Return the files of *listings*, each URI once; any of them may be a second name of another."""
    notes: list[str] = []
    known: set[str] = set()
    several: list[SourceFiles] = []
    for listing in listings:
        uris = listing.files.column("uri").to_pylist()
        twice = [uri for uri in uris if uri in known]
        if twice:
            notes.append(f"source: {twice[0]} is named twice; it is read once")
        several.append(listing.files.without(twice))
        known.update(uris)
        notes += listing.notes
    links = frozenset[str]().union(*(listing.links for listing in listings))
    return Listing(SourceFiles.joined(several), links, tuple(notes))


def _check_partitions(files: SourceFiles, roots: tuple[str, ...]) -> None:
    for folder in files.folders("="):
        partition_columns(f"{folder}/", roots)  # it raises for a column named twice


def _endings() -> str:
    suffixes = (suffix for name in BUILT_IN for suffix in format_named(name).suffixes[:1])
    return " or ".join(suffixes)


def format_by_names(source: SourceSpec) -> str | None:
    """Return the format that the URIs of *source* show by themselves; None for none or several."""
    formats = {kind.format for uri in source.uris if (kind := file_kind(uri))}
    return source.format or (formats.pop() if len(formats) == 1 else None)


def _list_one(uri: str, source: SourceSpec) -> Listing:
    storage, key = locate(uri, storage_options=source.storage_options)
    entry = storage.head(key) if key else None
    if entry is not None:  # before any glob: a file's name may look like one
        refuse_names([uri])
        return Listing(SourceFiles.of([_file(uri, entry, _kind_of_named_file(uri, source))]))
    pattern = SourcePattern.of(uri)
    base = pattern.root.rstrip("/")
    options = source.options  # made once, and not for each of a million files
    found = found_below(
        pattern.root,
        lambda key: pattern.selects(f"{base}/{key}", format=source.format, options=options),
        by_key=pattern.pattern is not None,
        options=source.storage_options,
    )
    files, yielding = _without_yielding(found.files)
    unknown = [key for key in found.others if pattern.pattern is None and _says_little(key)]
    unknown += [name.removeprefix(f"{base}/") for name in yielding.column("uri").to_pylist()]
    links = sorted(found.links, key=lambda link: link.key)
    astray = [link.key for link in links if not link.leads_to_file and pattern.pattern is None]
    return Listing(
        files,
        frozenset(f"{base}/{link.key}" for link in links if link.leads_to_file),
        (*_passed_over(uri, sorted(unknown), astray), *unfinished_outputs(files, found.unfinished)),
        found.second_names,
    )


def _says_little(key: str) -> bool:
    """Return whether the name *key* does not say for certain that it is no file of the source."""
    kind = file_kind(key)
    return kind is None or format_named(kind.format).gives_way


def _without_yielding(files: SourceFiles) -> tuple[SourceFiles, SourceFiles]:
    """Return the files to read, and those of formats that give way to the formats of others."""
    gives_way = [kind for kind in files.used_kinds() if format_named(kind.format).gives_way]
    if len(gives_way) == len(files.used_kinds()):
        return files, files[:0]
    return files.of_kinds(gives_way, negated=True), files.of_kinds(gives_way)


def _passed_over(uri: str, unknown: Sequence[str], astray: Sequence[str]) -> Iterator[str]:
    passed = []
    if unknown:
        passed.append(f"{len(unknown):,} file(s) whose names say no format ({some(unknown)})")
    if astray:
        passed.append(f"{len(astray):,} link(s) to folders or to nothing ({some(astray)})")
    if passed:
        yield (
            f"source {uri}: passed over {' and '.join(passed)}; to read them, name them in source.uri, "
            "with source.format"
        )


def _file(uri: str, entry: Entry, kind: FileKind) -> SourceFile:
    return SourceFile(uri, entry.size, entry.identity, kind, _modified(uri, entry))


def _modified(uri: str, entry: Entry) -> int | None:
    if is_path(uri):  # where the identity is the time, in nanoseconds
        return int(entry.identity) // 1000
    return round(entry.modified * 1_000_000) or None


def _kind_of_named_file(uri: str, source: SourceSpec) -> FileKind:
    kind = source.kind_of(uri)
    if kind is None:
        raise InvalidSpecError(
            f"source {uri}: its name does not show its format; give source.format: "
            f"{' or '.join(BUILT_IN)}"
        )
    return kind


def _check_one_format(files: SourceFiles) -> None:
    kinds = files.used_kinds()
    other = next((kind for kind in kinds if kind.format != kinds[0].format), None)
    if other is not None:
        one, another = (files.of_kinds([kind])[0].uri for kind in (kinds[0], other))
        raise InvalidSpecError(
            f"the source mixes formats: {one} and {another}; give source.format, or two specs"
        )
