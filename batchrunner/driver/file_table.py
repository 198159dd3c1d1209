"""The files of a source as columns: a million of them are 100 MB, and no objects."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from batchrunner.array_buffers import int_array, text_array
from batchrunner.formats.registry import FileKind

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 4096
_COLUMNS = ("uri", "size", "identity", "modified", "kind")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the source.

    Attributes:
        uri: Absolute URI or path.
        size: Size in bytes.
        identity: Changes whenever the bytes change; may change without them.
        kind: Format and compression.
        modified: When it was last written, in microseconds since 1970 UTC; None if the store has no time.
            Not compared.
    """

    uri: str
    size: int
    identity: str
    kind: FileKind
    modified: int | None = field(default=None, compare=False)


class SourceFiles(Sequence[SourceFile]):
    """Files as columns of an Arrow table; equal to any sequence of equal files.

    Attributes:
        table: Columns `uri`, `size`, `identity`, `modified`, and `kind`, a number in *kinds*.
        kinds: The formats and compressions of the files.
    """

    __slots__ = ("kinds", "table")

    def __init__(self, table: pa.Table, kinds: Sequence[FileKind]) -> None:
        self.table, self.kinds = table, tuple(kinds)

    @classmethod
    def of(cls, files: Sequence[SourceFile]) -> SourceFiles:
        """Return *files* as a table; as they are if they are one."""
        if isinstance(files, SourceFiles):
            return files
        kinds = list(dict.fromkeys(file.kind for file in files))
        columns = {
            "uri": text_array([file.uri for file in files]),
            "size": int_array([file.size for file in files]),
            "identity": text_array([file.identity for file in files]),
            "modified": int_array([file.modified for file in files]),
            "kind": int_array([kinds.index(file.kind) for file in files]),
        }
        return cls(file_columns(columns), kinds)

    @classmethod
    def joined(cls, several: Sequence[SourceFiles]) -> SourceFiles:
        """Return the files of *several*, one after the other."""
        import pyarrow as pa

        kinds = list(dict.fromkeys(kind for files in several for kind in files.kinds))
        tables = []
        for files in several:
            numbers = int_array([kinds.index(kind) for kind in files.kinds])
            own = files.table.column("kind").combine_chunks()
            tables.append(files.table.set_column(4, "kind", numbers.take(own)))
        return cls(pa.concat_tables([file_columns({}), *tables]), kinds)

    def __len__(self) -> int:
        return self.table.num_rows  # type: ignore[no-any-return]  # pyarrow is untyped

    def __iter__(self) -> Iterator[SourceFile]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self._files(self.table.slice(start, _AT_ONCE))

    @overload
    def __getitem__(self, index: int) -> SourceFile: ...
    @overload
    def __getitem__(self, index: slice) -> SourceFiles: ...
    def __getitem__(self, index: int | slice) -> SourceFile | SourceFiles:
        numbers = range(len(self))[index]
        if isinstance(numbers, int):
            return next(self._files(self.table.slice(numbers, 1)))
        assert numbers.step == 1, "files are neighbours"  # noqa: S101
        return SourceFiles(self.table.slice(numbers.start, len(numbers)), self.kinds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def is_same_table(self, other: SourceFiles) -> bool:
        """Return whether *other* has the same files, compared by columns: false if in doubt."""
        return self.kinds == other.kinds and bool(self.table.equals(other.table))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self):,} files>"

    def where(self, mask: Any) -> SourceFiles:
        """Return the files for which *mask*, an Arrow array of booleans, is true."""
        return SourceFiles(self.table.filter(mask), self.kinds)

    def without(self, uris: Collection[str]) -> SourceFiles:
        """Return the files but those called *uris*."""
        import pyarrow.compute as pc

        if not uris:
            return self
        named = text_array(list(uris))
        return self.where(pc.invert(pc.is_in(self.column("uri"), value_set=named)))

    def of_kinds(self, kinds: Collection[FileKind], *, negated: bool = False) -> SourceFiles:
        """Return the files of *kinds*; if *negated*, the others."""
        import pyarrow.compute as pc

        numbers = [number for number, kind in enumerate(self.kinds) if (kind in kinds) != negated]
        return self.where(pc.is_in(self.column("kind"), value_set=int_array(numbers)))

    def alike(self, like: Collection[str] | None = None) -> list[list[str]]:
        """Return the URIs of files that have one size and identity, where there are several.

        With *like*, only of those that are like one of these files.
        """
        import pyarrow.compute as pc

        by, table = ["size", "identity"], self.table.select(["uri", "size", "identity"])
        if like is not None:
            named = pc.is_in(table.column("uri"), value_set=text_array(list(like)))
            few = table.filter(named).select(by)
            table = table.join(few, by, join_type="left semi", use_threads=False)
        groups = table.group_by(by, use_threads=False).aggregate(
            [("uri", "list"), ("uri", "count")]
        )
        several = groups.filter(pc.greater(groups.column("uri_count"), 1))
        return several.column("uri_list").to_pylist()  # type: ignore[no-any-return]

    def folders(self, text: str) -> set[str]:
        """Return the folders of the files that have *text* in their URI."""
        import pyarrow.compute as pc

        uris = self.column("uri")
        return {
            uri.rpartition("/")[0]
            for uri in uris.filter(pc.match_substring(uris, text)).to_pylist()
        }

    def column(self, name: str) -> Any:
        """Return a column of the table."""
        return self.table.column(name)

    def size(self) -> int:
        """Return the size of all files, in bytes."""
        import pyarrow.compute as pc

        return pc.sum(self.column("size")).as_py() or 0

    def used_kinds(self) -> list[FileKind]:
        """Return the kinds that files have, in the order of their first files."""
        return [self.kinds[number] for number in self.column("kind").unique().to_pylist()]

    def _files(self, table: pa.Table) -> Iterator[SourceFile]:
        uris, sizes, identities, modified, kinds = (c.to_pylist() for c in table.columns)
        return map(
            SourceFile, uris, sizes, identities, map(self.kinds.__getitem__, kinds), modified
        )


def file_columns(columns: Mapping[str, Any]) -> pa.Table:
    """Return *columns* of files as a table; without any, an empty one."""
    import pyarrow as pa

    empty = text_array([]), int_array([]), text_array([]), int_array([]), int_array([])
    arrays = [columns.get(name, none) for name, none in zip(_COLUMNS, empty, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(_COLUMNS))
