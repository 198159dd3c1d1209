"""Finds the files below one URI of a source: names from a storage, many at a time, selected by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from batchrunner.array_buffers import int_array, text_array
from batchrunner.driver.file_table import SourceFiles, file_columns
from batchrunner.driver.sink_state import OWNER, SUCCESS
from batchrunner.errors import InvalidSpecError
from batchrunner.formats.registry import FileKind, has_dotted_suffixes
from batchrunner.storage import Entry, is_path, open_storage
from batchrunner.storage.contract import Options
from batchrunner.storage.disk.links import Link
from batchrunner.storage.disk.walking import FolderFiles, Walk
from batchrunner.storage.keys import is_hidden

if TYPE_CHECKING:
    import pyarrow as pa

_MARKS = frozenset({OWNER, SUCCESS})
_AT_ONCE, _MOST_ENDINGS = 1 << 14, 4096

KindOf = Callable[[str], FileKind | None]
"""Returns the kind of the file with a key, None if it does not belong to the source: by its name and
the text after the first dot in that, unless `by_key`."""


@dataclass(slots=True)
class Found:
    """The files below one URI.

    Attributes:
        files: Those that belong to the source, sorted by key.
        others: Keys of those that do not.
        links: The symbolic links among all.
        second_names: URIs of the files that may have other names, too.
        unfinished: URIs of the folders that are outputs of runs which are not complete.
    """

    files: SourceFiles
    others: list[str] = field(default_factory=list)
    links: Sequence[Link] = ()
    second_names: frozenset[str] = frozenset()
    unfinished: Sequence[str] = ()


def found_below(root: str, kind_of: KindOf, *, by_key: bool, options: Options) -> Found:
    """Return the files below *root* whose names are not hidden.

    Raises:
        InvalidSpecError: The name of a file is no UTF-8.
        StorageError: A folder cannot be read.
    """
    base, kinds = root.rstrip("/"), _Kinds(kind_of, by_key=by_key)
    walk = Walk(root, notices=_MARKS) if is_path(root) else None
    marks = walk.noticed if walk else []
    batches = map(_of_disk, walk) if walk else _of_store(root, options, marks)
    tables: list[pa.Table] = [file_columns({})]
    others: list[str] = []
    second: set[str] = set()
    for batch in batches:
        numbers = kinds.of(batch)
        chosen = batch
        if -1 in numbers:
            chosen = batch.where([number >= 0 for number in numbers])
            others += batch.where([number < 0 for number in numbers]).all_keys()
        second.update(f"{base}/{batch.prefix}{name}" for name in batch.second_names)
        tables.append(_table(chosen, base, [number for number in numbers if number >= 0]))
    import pyarrow as pa

    files = SourceFiles(pa.concat_tables(tables), kinds.found)
    unfinished = [f"{base}/{folder}".rstrip("/") for folder in _unfinished(marks)]
    return Found(files, others, walk.links if walk else (), frozenset(second), unfinished)


def _unfinished(marks: Iterable[str]) -> list[str]:
    """Return the folders of *marks* with an owner and no `_SUCCESS`: their run has more to write."""
    folders: dict[str, set[str]] = {OWNER: set(), SUCCESS: set()}
    for mark in marks:
        folder, _, name = mark.rpartition("/")
        folders[name].add(folder)
    return sorted(folders[OWNER] - folders[SUCCESS])


@dataclass(slots=True)
class _Batch:
    """Neighbouring files: *columns* are lists or arrays of `size`, `identity` and `modified`."""

    prefix: str
    names: list[str]
    columns: dict[str, Any]
    second_names: Sequence[str] = ()

    def all_keys(self) -> list[str]:
        return [self.prefix + name for name in self.names]

    def where(self, mask: list[bool]) -> _Batch:
        names = [name for name, is_chosen in zip(self.names, mask, strict=True) if is_chosen]
        numbers = int_array([number for number, is_chosen in enumerate(mask) if is_chosen])
        columns = {name: column.take(numbers) for name, column in self.columns.items()}
        return _Batch(self.prefix, names, columns)


def _of_disk(files: FolderFiles) -> _Batch:
    import numpy as np
    import pyarrow as pa

    times = np.array(files.times, "<i8")
    columns = {
        "size": int_array(files.sizes),
        "identity": int_array(times).cast(pa.large_string()),
        "modified": int_array(times // 1000),
    }
    return _Batch(files.prefix, files.names, columns, files.second_names)


def _of_store(root: str, options: Options, marks: list[str]) -> Iterator[_Batch]:
    """Yield the files of a store; add those that mark an output to *marks*."""
    entries = open_storage(root, storage_options=options).list(recursive=True)
    seen = (entry for entry in entries if not _is_left_out(entry.key, marks))
    while some := list(islice(seen, _AT_ONCE)):
        yield _Batch("", [entry.key for entry in some], _columns(some))


def _columns(entries: Sequence[Entry]) -> dict[str, Any]:
    return {
        "size": int_array([entry.size for entry in entries]),
        "identity": text_array([entry.identity for entry in entries]),
        "modified": int_array([round(e.modified * 1_000_000) or None for e in entries]),
    }


def _is_left_out(key: str, marks: list[str]) -> bool:
    if not is_hidden(key):
        return False
    folder, _, name = key.rpartition("/")
    if name in _MARKS and not is_hidden(folder):
        marks.append(key)
    return True


def _table(batch: _Batch, base: str, numbers: list[int]) -> pa.Table:
    start = f"{base}/{batch.prefix}"
    uris = [start + name for name in batch.names]
    try:
        return file_columns({"uri": text_array(uris), **batch.columns, "kind": int_array(numbers)})
    except UnicodeEncodeError:
        refuse_names(uris)
        raise


def refuse_names(uris: Iterable[str]) -> None:
    """Refuse names that are no text: neither the plan nor a report could hold them."""
    shown = {uri: uri.encode(errors="backslashreplace").decode() for uri in uris}
    bad = [text for uri, text in shown.items() if text != uri]
    if bad:
        more = f" (and {len(bad) - 1:,} more)" if len(bad) > 1 else ""
        raise InvalidSpecError(
            f"source: {bad[0]}: its name is no UTF-8{more}; rename the file, or leave it out with a "
            "glob in source.uri"
        )


class _Kinds:
    """The kinds of many files; looks at each ending of a name once, since most are alike."""

    def __init__(self, kind_of: KindOf, *, by_key: bool) -> None:
        self.found: list[FileKind] = []
        self._kind_of, self._by_key = kind_of, by_key
        self._known: dict[str, int] = {}

    def of(self, batch: _Batch) -> list[int]:
        """Return the number of each file's kind in `found`; -1 for one that is not selected."""
        prefix, names = batch.prefix, batch.names
        if self._by_key:
            return [self._number(prefix + name) for name in names]
        endings = [name[name.rfind("/") + 1 :].partition(".")[2] for name in names]
        new = {e: n for e, n in zip(endings, names, strict=True) if e not in self._known}
        if len(new) + len(self._known) > _MOST_ENDINGS or not self._learn(prefix, new):
            self._known.clear()
            return [self._number(prefix + name) for name in names]
        known = self._known
        if len(endings) > 1 and endings.count(endings[0]) == len(endings) and endings[0]:
            return [known[endings[0]]] * len(endings)
        return [
            known[ending] if ending else self._number(prefix + name)
            for ending, name in zip(endings, names, strict=True)
        ]

    def _learn(self, prefix: str, names: dict[str, str]) -> bool:
        """Learn the kind of each ending by a name with it; return whether that decides the kind."""
        for ending, name in names.items():
            self._known[ending] = self._number(prefix + name)
        return has_dotted_suffixes()

    def _number(self, key: str) -> int:
        kind = self._kind_of(key)
        if kind is None:
            return -1
        if kind not in self.found:
            self.found.append(kind)
        return self.found.index(kind)
